//! How full the server's own disk is. Below the reserve no job is started; what running jobs leave may use
//! half of it, so that they can end; the rest is for rows.

use protocol::ByteSize;

use crate::config::Config;

/// What to say where a disk filled while something was written.
pub(crate) const FULL: &str = "the server's disk is full: make room on the server, then it goes on";

/// Why no job is started now; none: there is room. The words do not count, so that a full disk is one write.
pub(crate) async fn low(config: &Config) -> Option<String> {
    let reserve = config.disk_reserve;
    (free(config).await? < reserve).then(|| {
        format!(
            "the server's disk has less than {reserve} free (`disk_reserve`): make room where {} lies",
            config.data.display()
        )
    })
}

/// Whether so many bytes more may be written; else what to say.
pub(crate) async fn room(config: &Config, bytes: u64) -> Result<(), String> {
    let floor = ByteSize(config.disk_reserve.0 / 2);
    match free(config).await {
        Some(free) if free.0 < floor.0.saturating_add(bytes) => Err(format!(
            "the server's disk has {free} free, of which it keeps {floor} for itself (half of \
             `disk_reserve`): {} more do not fit; make room on the server, then it goes on",
            ByteSize(bytes)
        )),
        Some(_) | None => Ok(()),
    }
}

/// Free space for the server's user where its data lies; none where that cannot be known.
async fn free(config: &Config) -> Option<ByteSize> {
    let data = config.data.clone();
    let look = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&data));
    match look.await.ok()? {
        Ok(stat) => Some(ByteSize(stat.f_bavail.saturating_mul(stat.f_frsize))),
        Err(error) => {
            tracing::warn!(%error, "the free space of the server's disk cannot be read");
            None
        }
    }
}
