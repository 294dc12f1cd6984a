//! The command line that runs all tools, so many at a time. It starts nothing itself.

use protocol::spec::LintTool;

use crate::command::quote;

/// Folder below `/tmp` for what the tools say: for each, by its number, `out`, `err`, `code`, `began` and `notes`.
pub(crate) const FOLDER: &str = "trainyard-lint";
/// nbQA as we run it: it keeps notes of what it joined.
const NBQA: &str = include_str!("nbqa.py");
/// Leaves out notebooks that were taken away, as nobody can read them.
const THERE: &str = r#"for path do
  shift
  [ ! -e "$path" ] || set -- "$@" "$path"
done
[ $# -gt 0 ] || exit 0
"#;
/// Every slot goes through all tools, and takes those that nobody has taken.
const TAKE: &str = r#"take() {
  n=$1; shift
  mkdir "$out/$n" 2>/dev/null || return 0
  : >"$out/$n/began"
  "$@" >"$out/$n/out" 2>"$out/$n/err"
  echo $? >"$out/$n/code"
}
"#;
/// Finds the Python that has nbQA; without one, nbQA runs as it is.
const THROUGH: &str = r#"for python in python3 python ''; do
  [ -z "$python" ] || "$python" -c 'import sys
sys.path = [folder for folder in sys.path if folder]
from importlib.util import find_spec
sys.exit(find_spec("nbqa") is None)' 2>/dev/null && break
done
through() {
  if [ -n "$python" ]; then TRAINYARD_NOTES=$out/$n/notes "$python" -c "$nbqa" "$@"; else nbqa "$@"; fi
}
"#;

/// The command line: the notebooks are its arguments, as a single one has its limit (128 KiB on Linux).
pub(crate) fn argv(tools: &[LintTool], notebooks: &[String], cpu_millis: u64) -> Vec<String> {
    let mut script =
        format!("out=$TMPDIR/{FOLDER}; rm -rf \"$out\"; mkdir -p \"$out\"\n{THERE}{TAKE}");
    if !tools.iter().all(LintTool::is_native) {
        script.push_str(&format!("nbqa={}\n{THROUGH}", quote(NBQA)));
    }
    script.push_str("all() {\n");
    for (n, tool) in tools.iter().enumerate() {
        script.push_str(&format!("  take {n} {}\n", command(tool)));
    }
    script.push_str("}\n");
    for _ in 0..slots(cpu_millis).min(tools.len()) {
        script.push_str("all \"$@\" &\n");
    }
    script.push_str("wait\n");
    let fixed = ["sh", "-c", &script, "sh"].map(str::to_owned);
    fixed
        .into_iter()
        .chain(notebooks.iter().map(safe))
        .collect()
}

/// Tools at a time: one for each CPU of the job.
fn slots(cpu_millis: u64) -> usize {
    usize::try_from(cpu_millis.div_ceil(1_000)).map_or(usize::MAX, |cpus| cpus.max(1))
}

/// One tool's command line. What the project excludes stays excluded though the notebooks are named.
fn command(tool: &LintTool) -> String {
    if tool.is_native() {
        return match tool.tool.as_str() {
            "ruff-format" => "ruff format --no-cache --force-exclude --diff \"$@\"".to_owned(),
            _ => "ruff check --no-cache --force-exclude --output-format json \"$@\"".to_owned(),
        };
    }
    // What their words are read by is said last: the project's settings may say otherwise.
    let fixed = match tool.tool.as_str() {
        "ruff" => " --no-cache --force-exclude --output-format json",
        "black" => " --nbqa-diff",
        "isort" => " --nbqa-diff --filter-files",
        "flake8" => " --format default --no-show-source",
        "mypy" => " --show-column-numbers --no-pretty --no-error-summary --cache-dir=/dev/null",
        "pylint" => {
            " --output-format=text --msg-template={path}:{line}:{column}:\\ {msg_id}:\\ {msg}\\ \\({symbol}\\) --score=n --reports=n"
        }
        _ => "",
    };
    let args: String = tool
        .args
        .iter()
        .map(|arg| format!(" {}", quote(arg)))
        .collect();
    format!("through {} \"$@\"{args}{fixed}", quote(&tool.tool))
}

/// A path that no tool takes for a flag.
fn safe(path: &String) -> String {
    if path.starts_with('-') {
        format!("./{path}")
    } else {
        path.clone()
    }
}
