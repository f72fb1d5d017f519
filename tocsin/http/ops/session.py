"""Signing in with a key, and out again."""

from __future__ import annotations

from urllib.parse import parse_qs, quote

from litestar import Response, delete, post
from litestar.di import NamedDependency
from msgspec import Struct

from tocsin.engine.store.credential import close_session, open_session, operator_by_key
from tocsin.http import openapi
from tocsin.http.auth import read_cookie
from tocsin.http.errors import AnyRequest, Forbidden, Unauthorized
from tocsin.http.operation import Answer, Operation, documented
from tocsin.http.ops.access import COOKIE, is_foreign, operators_only, session_cookie
from tocsin.http.ops.ops_page import sign_in_page
from tocsin.http.requests import no_content, read_body
from tocsin.http.services import Services

PATH = "/ops/session/"
TAG = "Operations"
_FORM = "application/x-www-form-urlencoded"
_LARGEST_BODY = 4_000  # bytes, from anybody
_WRONG = "That is no good key of the scope ops."
_CURE = "`tocsin api-key create NAME --scope ops` makes one, `tocsin api-key list` shows those that are live."


class SignIn(Struct, frozen=True):
    """The key, and what to search for after that."""

    key: str
    q: str = ""


@post(
    PATH,
    opt=documented(
        Operation(
            summary="Sign in",
            description=(
                "Exchanges an API key of the scope `ops` for a cookie that lasts twelve hours, and no longer than the "
                "key. As JSON, or as the page's form, which is answered by a redirect to it."
            ),
            tag=TAG,
            body=SignIn,
            body_example={"key": "tocsin_…"},
            other_body_types=(_FORM,),
            answers={
                401: Answer("To the form: the page that asks for a key.", media_type="text/html"),
                204: Answer("Signed in.", headers={"Set-Cookie": "The session."}),
                303: Answer("To the page, from its form.", headers={"Set-Cookie": "The session."}),
            },
            fails=(400, 401, 403, 413, 422, 503),
        )
    ),
    request_max_body_size=_LARGEST_BODY,
)
async def sign_in(
    request: AnyRequest, services: NamedDependency[Services]
) -> Response[None] | Response[str] | Response[bytes]:
    """A key for a session."""
    if is_foreign(request):
        raise Forbidden("Nobody is signed in by another site's page.")
    form = request.headers.get("content-type", "").startswith(_FORM)
    asked = await _form(request) if form else await read_body(request, SignIn)
    operator = await operator_by_key(services.database, asked.key.strip())
    if operator is None and form:
        return sign_in_page(asked=asked.q, wrong=_WRONG)
    if operator is None:
        raise Unauthorized(f"{_WRONG} {_CURE}", error="invalid_token")
    cookie = session_cookie(services, await open_session(services.database, operator))
    answer: Response[None] | Response[bytes] = (
        # relative, so that it leads to the same host and prefix
        Response(
            b"",
            status_code=303,
            media_type="text/plain",
            headers={"Location": "../" + _search(asked.q)},
        )
        if form
        else no_content()
    )
    answer.set_cookie(cookie)
    return answer


@delete(
    PATH,
    # beside `sign_in`, since one path is one router's
    guards=[operators_only],
    opt={
        openapi.ACCESS: "operator",
        **documented(
            Operation(summary="Sign out", tag=TAG, answers={204: Answer("The session is over.")})
        ),
    },
)
async def sign_out(request: AnyRequest, services: NamedDependency[Services]) -> Response[None]:
    """Ends the session."""
    await close_session(services.database, read_cookie(request, COOKIE))
    answer = no_content()
    answer.set_cookie(session_cookie(services, None))
    return answer


async def _form(request: AnyRequest) -> SignIn:
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return SignIn(fields.get("key", [""])[0], fields.get("q", [""])[0])


def _search(asked: str) -> str:
    return f"?q={quote(asked[:320], safe='')}#search" if asked else ""
