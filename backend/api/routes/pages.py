"""The pages for browsers: Aperta's own at `/`, Swagger UI at `/docs`. Nothing is loaded from other sites."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

WEB = Path(__file__).resolve().parents[2] / "web"
SWAGGER_UI = "/assets/swagger-ui"


@router.get("/")
async def page() -> FileResponse:
    return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache", "X-Frame-Options": "DENY"})


@router.get("/docs")
async def swagger_ui(request: Request) -> HTMLResponse:
    root = request.scope.get("root_path", "").rstrip("/")
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Aperta API",
        swagger_js_url=f"{root}{SWAGGER_UI}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{SWAGGER_UI}/swagger-ui.css",
        swagger_favicon_url=f"{root}/assets/web/favicon.svg",
        swagger_ui_parameters={"tryItOutEnabled": True, "displayRequestDuration": True},
    )


def mount_assets(app: FastAPI) -> None:
    """Serve the page's files and the Swagger UI that the fastapi-swagger package carries."""
    resources = Path(str(files("fastapi_swagger") / "resources"))
    app.mount(SWAGGER_UI, StaticFiles(directory=resources), name="swagger-ui")
    app.mount("/assets/web", _FreshFiles(directory=WEB), name="web")


class _FreshFiles(StaticFiles):
    """Files that browsers ask about each time (an ETag answers cheaply): page and script must be of one version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
