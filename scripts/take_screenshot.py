"""Take the README's picture of the page: a real server, the sample meeting processed, and a headless Chromium.

Run by `make screenshot` from the project's folder. Writes docs/images/page.png. Needs Debian's `chromium`, or another
one named in CHROMIUM.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import CHROMIUM_FLAGS
from tests.conftest import ROOT, SAMPLE
from tests.support.processes import serving, wait_until_ready

PICTURE = ROOT / "docs" / "images" / "page.png"
TITLE = "Library committee"
VIEWPORT = {"width": 1080, "height": 692}
SCALE = 1.5
"""Device pixels per CSS pixel: sharp on a high-density display, and still a small file."""


def main() -> int:
    """Take the picture; returns the exit status."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not executable:
        print("Chromium is needed: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        wait_until_ready(server.url)
        conversation_id = _process_sample(server.url)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=list(CHROMIUM_FLAGS))
            page = browser.new_page(viewport=VIEWPORT, device_scale_factor=SCALE, color_scheme="light")
            _photograph(page, f"{server.url}/#/conversations/{conversation_id}")
            browser.close()
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1000} kB")
    return 0


def _process_sample(url: str) -> str:
    with SAMPLE.open("rb") as file:
        files = {"file": (SAMPLE.name, file)}
        answer = httpx.post(f"{url}/audio/process", files=files, data={"title": TITLE}, timeout=300)
    answer.raise_for_status()
    conversation_id: str = answer.json()["conversation_id"]
    return conversation_id


def _photograph(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("heading", level=1, name=TITLE).wait_for()
    page.locator("#segments > li").last.wait_for()
    page.evaluate("document.activeElement.blur()")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURE)


if __name__ == "__main__":
    sys.exit(main())
