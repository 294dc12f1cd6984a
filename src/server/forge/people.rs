//! What people may do at a forge.

use serde::Deserialize;

use super::api::Api;
use super::{ForgeError, ForgeKind};

/// GitLab's number of a developer, who may push to branches that are not protected.
const DEVELOPER: u64 = 30;

impl Api {
    /// Whether somebody may write to the repository. GitLab asks for their number, the others for their name.
    pub(super) async fn writes(
        &self,
        login: &str,
        number: Option<u64>,
    ) -> Result<bool, ForgeError> {
        let found = match (self.kind(), number) {
            (ForgeKind::Github | ForgeKind::Gitea, _) => {
                let path = ["collaborators", login, "permission"];
                self.find(&path, role).await?
            }
            (ForgeKind::Gitlab, Some(number)) => {
                let path = ["members", "all", &number.to_string()];
                self.find(&path, member).await?
            }
            (ForgeKind::Gitlab, None) => None,
        };
        // Who is nobody there is not found.
        Ok(found.unwrap_or(false))
    }
}

/// GitHub maps its finer roles to these words; Gitea has `owner` besides.
fn role(body: &[u8]) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Role {
        permission: String,
    }
    let role: Role = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    Ok(matches!(
        role.permission.as_str(),
        "owner" | "admin" | "write"
    ))
}

fn member(body: &[u8]) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Member {
        access_level: u64,
        /// A member who waits for approval or was blocked is none.
        #[serde(default)]
        state: Option<String>,
    }
    let member: Member = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let active = member.state.is_none_or(|state| state == "active");
    Ok(active && member.access_level >= DEVELOPER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write() {
        for (body, may) in [
            (r#"{"permission": "admin"}"#, true),
            (r#"{"permission": "write", "role_name": "maintain"}"#, true),
            (r#"{"permission": "owner"}"#, true),
            (r#"{"permission": "read"}"#, false),
            (r#"{"permission": "none"}"#, false),
        ] {
            assert_eq!(role(body.as_bytes()), Ok(may), "{body}");
        }
        for (body, may) in [
            (r#"{"access_level": 30, "state": "active"}"#, true),
            (r#"{"access_level": 50}"#, true),
            (r#"{"access_level": 20, "state": "active"}"#, false),
            (r#"{"access_level": 40, "state": "blocked"}"#, false),
        ] {
            assert_eq!(member(body.as_bytes()), Ok(may), "{body}");
        }
        assert!(role(b"{}").is_err() && member(b"[]").is_err());
    }
}
