#!/usr/bin/env python
"""Draw README's pictures anew: run its sweeps in an empty folder, and keep their sheets and a picture of the page.

python scripts/readme_figures.py                  # some minutes; needs Chromium for the page
python scripts/readme_figures.py --to /tmp/docs   # elsewhere, to look at first
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SHEETS = ("quickstart", "techniques")  # sweeps
PAGE, PLACE = "quickstart", "mode=wipe&pick=0,9"  # of two cells, the second one wiped over the first
COLOURS = 256


def swept(name: str, folder: Path) -> Path:
    """The folder of a shipped sweep's results, run here."""
    command = Path(sys.executable).parent / "diffsweep"
    subprocess.run([command, "-m", f"+sweeps={name}"], cwd=folder, check=True)
    return folder / "outputs" / "sweeps" / name


def photographed(page: Path, place: str, file: Path) -> None:
    """What a browser shows of a report page."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1240, "height": 800})
        view.goto(f"{page.as_uri()}#{place}")
        view.locator("#count:not(:empty)").wait_for()  # it is drawn
        view.screenshot(path=file)
        browser.close()


def smaller(file: Path) -> None:
    """The picture in few colours, for whoever clones the repository."""
    Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="folder (default: docs/)")
    to = parser.parse_args().to
    to.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for name in SHEETS:
            shutil.copy(swept(name, Path(folder)) / "grid.png", to / f"{name}.png")
        photographed(Path(folder, "outputs", "sweeps", PAGE, "report.html"), PLACE, to / "report.png")
    for name in (*SHEETS, "report"):
        smaller(to / f"{name}.png")
        print(to / f"{name}.png")


if __name__ == "__main__":
    main()
