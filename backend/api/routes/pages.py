"""The pages for browsers: Aperta's own at `/`, Swagger UI at `/docs`. Nothing is loaded from other sites."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from backend.api.responses.policy import ASSET, PAGE_POLICY, SWAGGER_POLICY

router = APIRouter(include_in_schema=False)

WEB = Path(__file__).resolve().parents[2] / "web"


@router.get("/")
async def page() -> FileResponse:
    return FileResponse(WEB / "index.html", headers={"Content-Security-Policy": PAGE_POLICY})


@router.get("/docs")
async def swagger_ui() -> FileResponse:
    return FileResponse(WEB / "docs.html", headers={"Content-Security-Policy": SWAGGER_POLICY})


def mount_assets(app: FastAPI) -> None:
    """Serve the page's files and the Swagger UI that the fastapi-swagger package carries."""
    resources = Path(str(files("fastapi_swagger") / "resources"))
    app.mount("/assets/swagger-ui", _Assets(directory=resources), name="swagger-ui")
    app.mount("/assets/web", _Assets(directory=WEB), name="web")


class _Assets(StaticFiles):
    """Files that browsers ask about each time: page and script must be of one version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = ASSET
        return response
