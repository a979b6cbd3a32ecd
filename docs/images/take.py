"""Pictures of the top of a report, light and dark, for these pages.

    python docs/images/take.py examples/quickstart/work/bundle/report.html

Writes report-light.png and report-dark.png beside this file, or below the folder of a second
argument. Needs Chromium.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH, HEIGHT = 1000, 1170
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCHEMES = {"light": 1, "dark": 0}
"""Blink's numbers of the colour schemes that a page can prefer."""


def take(page: Path, folder: Path, browser: str) -> list[Path]:
    """One picture a scheme; the page runs no script, and reaches no network."""
    taken = []
    for name, scheme in SCHEMES.items():
        picture = folder / f"report-{name}.png"
        with tempfile.TemporaryDirectory() as profile:
            command = [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={profile}",
                f"--blink-settings=preferredColorScheme={scheme}",
                f"--window-size={WIDTH},{HEIGHT}",
                f"--screenshot={picture.resolve()}",
                page.resolve().as_uri(),
            ]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        taken.append(picture)
    return taken


def main() -> None:
    """Take both, or say what is missing."""
    page = Path(sys.argv[1]) if len(sys.argv) in (2, 3) else None
    folder = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if page is None or not page.is_file():
        sys.exit("usage: python docs/images/take.py REPORT.html [FOLDER]; run `make quickstart`")
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed; apt-get install chromium")
    for picture in take(page, folder, browser):
        print(f"{picture}: {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
