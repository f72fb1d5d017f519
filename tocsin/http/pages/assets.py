"""What pages load: modules, their types and texts of languages, as `make web` built them into `tocsin/http/web`.

A host's page has one stable address, `/assets/tocsin-bell.js`, which a browser requests each time, mostly to get a 304.
Pages that change with each release use the address with the content's hash in it, which is kept for a year.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import cache
from importlib.resources import files

from litestar import Response
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from tocsin.engine.model import NotFound
from tocsin.http.auth import RATE, router
from tocsin.http.errors import AnyRequest
from tocsin.http.openapi import OtherResponse, get, noted
from tocsin.http.requests import Services

PATH = "/assets/"
_FOLDER = files("tocsin.http") / "web"
_KINDS = {".js": "text/javascript", ".d.ts": "text/plain", ".json": "application/json"}
_YEAR = "public, max-age=31536000, immutable"
_HASH = 16  # characters of it in an address

# Any page may load and read them: they are the same for everybody and hold nothing of anybody.
_OPEN = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}


_ETAG = ResponseHeader(
    name="ETag", description="Its version, for If-None-Match.", documentation_only=True
)


class Asset(Struct, frozen=True):
    """One file, ready to be sent."""

    kind: str
    version: str
    integrity: str  # for `integrity=` (W3C Subresource Integrity)
    plain: bytes
    zipped: bytes


class AssetAddress(Struct, frozen=True):
    """The permanent address of one file, and its hash for `integrity=`."""

    url: str
    integrity: str


def asset_path(name: str) -> str:
    """Returns the path of a file that may be kept for ever, without the public URL before it."""
    return f"{PATH}{_assets()[name].version}/{name}"


@get(PATH, opt={RATE: None})
async def list_assets(services: NamedDependency[Services]) -> Response[dict[str, AssetAddress]]:
    """List the modules.

    For each module: the address that has the hash of its content, and the hash for `integrity=`.
    """
    found = {
        name: AssetAddress(services.url(asset_path(name)), asset.integrity)
        for name, asset in _assets().items()
    }
    return Response(
        found, headers={"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
    )


@get(
    PATH + "{name:str}/",
    response_headers=[_ETAG],
    media_type="text/javascript",
    responses={304: OtherResponse("It is the version that If-None-Match names.")},
    opt={RATE: None, **noted(media_types=("text/plain", "application/json"), fails=(404,))},
)
async def asset(name: FromPath[str], request: AnyRequest) -> Response[bytes]:
    """Load a module.

    `tocsin-bell.js`, or its types `tocsin-bell.d.ts`; with an ETag, to be requested each time.
    """
    return _file_response(request, _found(name), "no-cache")


@get(
    PATH + "{version:str}/{name:str}/",
    response_headers=[_ETAG],
    media_type="text/javascript",
    responses={304: OtherResponse("It is the version that If-None-Match names.")},
    opt={RATE: None, **noted(media_types=("text/plain", "application/json"), fails=(404,))},
)
async def versioned_asset(
    version: FromPath[str], name: FromPath[str], request: AnyRequest
) -> Response[bytes]:
    """Load a module by its hash.

    The address has the hash of the content and may be kept for a year. Another hash leads to the current file,
    which no cache keeps.
    """
    found = _found(name)
    return _file_response(request, found, _YEAR if version == found.version else "no-cache")


def _found(name: str) -> Asset:
    found = _assets().get(name)
    if found is None:
        raise NotFound("There is no such file.")
    return found


def _file_response(request: AnyRequest, asset: Asset, caching: str) -> Response[bytes]:
    etag = f'"{asset.version}"'
    headers = {**_OPEN, "Cache-Control": caching, "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers)
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    headers |= {"Content-Encoding": "gzip"} if zipped else {}
    return Response(
        asset.zipped if zipped else asset.plain,
        status_code=200,
        media_type=asset.kind,
        headers=headers,
    )


@cache
def _assets() -> dict[str, Asset]:
    """Returns the files by name; they are read once."""
    found = {}
    for file in sorted(_FOLDER.iterdir(), key=lambda file: file.name):
        kind = next((kind for end, kind in _KINDS.items() if file.name.endswith(end)), None)
        if kind is not None:
            found[file.name] = _asset(kind, file.read_bytes())
    return found


def _asset(kind: str, plain: bytes) -> Asset:
    digest = hashlib.sha256(plain)
    return Asset(
        kind,
        digest.hexdigest()[:_HASH],
        f"sha256-{base64.b64encode(digest.digest()).decode()}",
        plain,
        gzip.compress(plain, 9, mtime=0),
    )


ROUTERS = (router("Pages", "everyone", list_assets, asset, versioned_asset),)
