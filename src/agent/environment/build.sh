# Builds an environment. Everything comes from variables: UV, TARGET, RESULT, WORKSPACE, KIND, INPUT, SCRATCH.
set -eu
python=$(command -v python3 || command -v python) || {
  echo "error: there is no python3 on the PATH"
  exit 97
}
cd "$WORKSPACE"
"$UV" venv --quiet --no-project --python "$python" "$TARGET"
if [ "$KIND" = lock ]; then
  "$UV" export --quiet --frozen --no-emit-workspace --project "$INPUT" --output-file "$SCRATCH/requirements.txt"
  INPUT=$SCRATCH/requirements.txt
fi
set -- --requirements "$INPUT"
# Requirements without versions are resolved once; a later build of the same gets the same.
if [ -s "$RESULT/resolved.txt" ]; then set -- "$@" --constraints "$RESULT/resolved.txt"; fi
"$UV" pip install --python "$TARGET/bin/python" --compile-bytecode "$@"
"$UV" pip freeze --quiet --python "$TARGET/bin/python" >"$RESULT/packages.txt"
"$python" - "$TARGET" "$RESULT/python.txt" <<'PYTHON'
# On top of what the image has: its folders come after ours. The image's Python may be a virtual environment itself.
import glob, platform, sys
target, version = sys.argv[1:]
folders = [p for p in sys.path if p.rstrip("/").endswith(("site-packages", "dist-packages"))]
with open(glob.glob(target + "/lib/python*/site-packages")[0] + "/zz_image.pth", "w") as out:
    out.writelines(f"import site; site.addsitedir({p!r})\n" for p in folders)
with open(version, "w") as out:
    out.write(platform.python_version())
PYTHON
