"""Photographs the page of a job that trained examples/digits. Run by scripts/screenshot."""

import pathlib
import subprocess
import sys

import world

WIDTH, HEIGHT = 1200, 1570
MOST_BYTES = 300_000
# Chromium asks for nothing but the page, and keeps nothing of it.
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
]


def photograph(url, folder, picture):
    """The top of a page, in as few colours as it needs."""
    raw = folder / "page.png"
    command = ["chromium", *QUIET, f"--user-data-dir={folder / 'chromium'}", f"--window-size={WIDTH},{HEIGHT}"]
    done = subprocess.run([*command, f"--screenshot={raw}", url], capture_output=True, text=True, timeout=120)
    if not raw.exists():
        raise world.WorldError(f"Chromium made no picture of {url}:\n{done.stderr[-2000:]}")
    subprocess.run(["pngquant", "--force", "--strip", "--speed=1", f"--output={picture}", "256", raw], check=True)
    if picture.stat().st_size > MOST_BYTES:
        raise world.WorldError(f"{picture} has {picture.stat().st_size} bytes, more than {MOST_BYTES}")


def main():
    program, picture = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    with world.temporary_folder("trainyard-picture-") as folder:
        repository = world.Repository(folder, world.ROOT / "examples" / "digits")
        pipeline = repository.path / ".trainyard.yml"
        as_it_is = pipeline.read_text()
        pipeline.write_text(as_it_is.replace("epochs: 15", "epochs: 8"))
        before = repository.commit("Learn the digits")
        with world.Server(program, folder, 'name = "workstation"\n') as server:
            server.ready()
            server.post("projects", {"name": "digits", "url": str(repository.remote)})
            repository.push()
            server.succeeded(before)
            # A second version, so that the page has metrics to compare with.
            pipeline.write_text(as_it_is)
            commit = repository.commit("Learn the digits in fifteen epochs")
            repository.push()
            jobs = server.succeeded(commit)["jobs"]
            train = next(job for job in jobs if job["name"] == "train")
            photograph(f"{server.url}/jobs/{train['id']}", folder, picture)
    print(f"{picture}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    sys.exit(main())
