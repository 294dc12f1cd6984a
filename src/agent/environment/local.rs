//! Whether what is to be installed is code of the repository itself, of which the requirements say no more than the
//! folder. Where that cannot be told, it is taken to be. It reads no file.

use toml::{Table, Value};

use super::inputs::named_file;

/// Ends of files that are packages.
const ARCHIVES: [&str; 6] = [".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"];
/// Options that name a package, or where packages lie, and may name a folder.
const OPTIONS: [&str; 4] = ["-e", "--editable", "-f", "--find-links"];

/// Of a requirements file, or a file that one names.
pub(super) fn in_requirements(text: &str) -> bool {
    let lines = text.lines().filter(|line| named_file(line).is_none());
    lines.into_iter().any(is_local)
}

/// Of a `pyproject.toml`. One without a list of its dependencies is built to learn them.
pub(super) fn in_project(text: &str) -> bool {
    let Ok(file) = text.parse::<Table>() else {
        return true;
    };
    let Some(project) = file.get("project") else {
        return true;
    };
    let dynamic = strings(project.get("dynamic")).any(|name| name.contains("dependencies"));
    dynamic || strings(project.get("dependencies")).any(is_local) || has_sources(&file)
}

/// Of the lines of a PEP 723 block.
pub(super) fn in_block(block: &str) -> bool {
    let lines = block.lines().filter(|line| !line.starts_with("# ///"));
    let text: Vec<&str> = lines
        .map(|line| line.trim_start_matches('#').trim_start())
        .collect();
    let Ok(file) = text.join("\n").parse::<Table>() else {
        return true;
    };
    strings(file.get("dependencies")).any(is_local) || has_sources(&file)
}

/// Of a `uv.lock`. Members of its workspace are not installed.
pub(super) fn in_lock(text: &str) -> bool {
    let Ok(file) = text.parse::<Table>() else {
        return true;
    };
    let members: Vec<&str> =
        strings(file.get("manifest").and_then(|it| it.get("members"))).collect();
    let packages = file.get("package").and_then(Value::as_array);
    packages.into_iter().flatten().any(|package| {
        let name = package.get("name").and_then(Value::as_str);
        let is_member = name.is_some_and(|name| members.contains(&name));
        let Some(source) = package.get("source").and_then(Value::as_table) else {
            return true;
        };
        !is_member
            && source.iter().any(|(kind, at)| match kind.as_str() {
                "directory" | "path" => true,
                "editable" => at.as_str() != Some("."),
                "registry" | "url" => at.as_str().is_none_or(is_place),
                // Not installed, or of a commit.
                _ => false,
            })
    })
}

/// `[tool.uv]`: a package from a folder, a place with packages, or an index that is one.
fn has_sources(file: &Table) -> bool {
    let Some(uv) = file.get("tool").and_then(|tool| tool.get("uv")) else {
        return false;
    };
    let sources = uv.get("sources").and_then(Value::as_table);
    let named = sources.into_iter().flatten().any(|(_, source)| {
        let many = source
            .as_array()
            .map_or(std::slice::from_ref(source), Vec::as_slice);
        many.iter()
            .any(|one| one.get("path").is_some() || one.get("workspace").is_some())
    });
    let indexes = uv.get("index").and_then(Value::as_array);
    let mut urls = indexes
        .into_iter()
        .flatten()
        .filter_map(|index| index.get("url"));
    named
        || strings(uv.get("find-links")).any(is_place)
        || urls.any(|url| url.as_str().is_none_or(is_place))
}

/// Whether a requirement, or a line of a requirements file, leads to a folder or a file.
fn is_local(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or_default().trim();
    if line.is_empty() || line.starts_with('#') {
        return false;
    }
    // Without what says for which systems, and the sums.
    let line = line.split(';').next().unwrap_or_default();
    let line = line.split(" --hash").next().unwrap_or_default().trim();
    let option = OPTIONS.iter().any(|option| line.starts_with(option));
    let archive = ARCHIVES.iter().any(|end| line.ends_with(end));
    let path = option || archive || line.contains(['/', '$']) || line.starts_with('.');
    line.contains("file:") || (path && is_place(line))
}

/// Whether it is a place of this host, and none of the network.
fn is_place(text: &str) -> bool {
    text.contains("file:") || !text.contains("://")
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_leads_to_a_folder_is_known() {
        for line in [
            ".",
            ".[gpu]",
            "./lib",
            "-e ./lib",
            "-e .",
            "--editable=lib",
            "lib/",
            "lib @ file:///workspace/lib",
            "file:lib",
            "wheels/lib-1-py3-none-any.whl",
            "lib-1.tar.gz ; python_version > '3'",
            "--find-links wheels",
            "${HERE}",
        ] {
            assert!(in_requirements(&format!("six==1\n{line}\n")), "{line}");
        }
        for line in [
            "six==1.17.0",
            "# ./lib",
            "six  # see ./lib",
            "torch==2.3 ; sys_platform == 'linux'",
            "six==1 --hash=sha256:ab",
            "--index-url https://pypi.example/simple",
            "lib @ https://example.org/lib-1.tar.gz",
            "-e git+https://example.org/lib@0123",
            "-r ml/base.txt",
            "-c ./pins.txt",
        ] {
            assert!(!in_requirements(&format!("{line}\n")), "{line}");
        }
    }

    #[test]
    fn a_project_and_a_block_say_it_in_their_sources() {
        let project = "[project]\nname = \"a\"\ndependencies = [\"lib\"]\n";
        assert!(!in_project(project));
        for more in [
            "[tool.uv.sources]\nlib = { path = \"lib\" }\n",
            "[tool.uv.sources]\nlib = [{ workspace = true }]\n",
            "[tool.uv]\nfind-links = [\"wheels\"]\n",
            "[[tool.uv.index]]\nurl = \"./index\"\n",
        ] {
            assert!(in_project(&format!("{project}{more}")), "{more}");
        }
        let git = "[tool.uv.sources]\nlib = { git = \"https://example.org/lib\" }\n";
        assert!(!in_project(&format!("{project}{git}")));
        assert!(in_project(
            "[project]\nname = \"a\"\ndynamic = [\"dependencies\"]\n"
        ));
        assert!(in_project("[build-system]\nrequires = []\n"));
        let block = "# /// script\n# dependencies = [\"lib\"]\n#\n# ///\n";
        assert!(!in_block(block));
        let sources = "# [tool.uv.sources]\n# lib = { path = \"lib\" }\n# ///\n";
        assert!(in_block(&block.replace("# ///\n", sources)));
    }

    #[test]
    fn a_lock_says_it_of_each_package_but_members() {
        let package = |source: &str| {
            format!(
                "version = 1\n[manifest]\nmembers = [\"own\"]\n[[package]]\nname = \"lib\"\nsource = {{ {source} }}\n"
            )
        };
        for source in [
            "directory = \"lib\"",
            "path = \"lib.whl\"",
            "editable = \"lib\"",
            "registry = \"../index\"",
        ] {
            let text = package(source);
            assert!(in_lock(&text), "{source}");
            let member = text.replace("\"lib\"\nsource", "\"own\"\nsource");
            assert!(!in_lock(&member), "{source}");
        }
        for source in [
            "registry = \"https://pypi.org/simple\"",
            "virtual = \".\"",
            "editable = \".\"",
            "git = \"https://example.org/lib?rev=1#2\"",
        ] {
            assert!(!in_lock(&package(source)), "{source}");
        }
    }
}
