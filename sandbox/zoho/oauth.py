"""Zoho Accounts: clients, codes, refresh tokens, access tokens, and the scopes they carry.

Most faults are answered with HTTP 200 and an `error` in the body; a good answer is one with an `access_token`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.config import SandboxConfig
from sandbox.zoho.data_centers import DATA_CENTERS, accounts_dc
from sandbox.zoho.errors import ApiError
from sandbox.zoho.model import Json, Request

if TYPE_CHECKING:
    from sandbox.zoho.org import Organisation
    from sandbox.zoho.schema import Module

FULL_SCOPES = (
    "ZohoCRM.modules.ALL",
    "ZohoCRM.settings.ALL",
    "ZohoCRM.org.READ",
    "ZohoCRM.users.READ",
    "ZohoCRM.coql.READ",
    "ZohoCRM.composite_requests.CUSTOM",
    "ZohoSearch.securesearch.READ",
)
THROTTLED = {
    "error": "Access Denied",
    "error_description": "You have made too many requests continuously. Please try again after some time.",
    "status": "failure",
}
NO_SUCH_TOKEN_PAGE = b"<html><head><title>Error</title></head><body>Invalid token</body></html>"


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client; a self client has no redirects and always gets refresh tokens."""

    id: str
    secret: str
    dc: str
    redirect_uris: tuple[str, ...] = ()
    is_self: bool = False


@dataclass(slots=True)
class Code:
    """A grant code: single use, short life."""

    client_id: str
    scopes: tuple[str, ...]
    expires_at_s: float
    redirect_uri: str | None
    is_offline: bool


@dataclass(slots=True)
class RefreshToken:
    """A refresh token, the times at which it gave access tokens, and until when it gives none."""

    text: str
    client_id: str
    scopes: tuple[str, ...]
    issued_s: deque[float] = field(default_factory=deque)
    refused_until_s: float = 0.0


@dataclass(slots=True)
class Grant:
    """An access token."""

    text: str
    client_id: str
    refresh_text: str | None
    scopes: tuple[str, ...]
    dc: str
    issued_at_s: float
    expires_at_s: float
    _allowed: dict[str, bool] = field(default_factory=dict)

    def set_scopes(self, scopes: tuple[str, ...]) -> None:
        """Other scopes from now on."""
        self.scopes = scopes
        self._allowed.clear()

    def allows(self, needed: str, names: Iterable[str] = ()) -> bool:
        """Does one of the token's scopes cover this need? For the forms of a need see `scope_options`."""
        key = f"{needed}/{','.join(names)}"
        if key not in self._allowed:
            held = {scope.lower() for scope in self.scopes}
            self._allowed[key] = not held.isdisjoint(scope_options(needed, names))
        return self._allowed[key]


def scope_options(needed: str, names: Iterable[str]) -> set[str]:
    """Every scope that covers a need: `module.READ` (with the module's scope names), or a full scope name."""
    stem, _, verb = needed.lower().rpartition(".")
    if stem == "module":
        stems = ["zohocrm.modules", *(f"zohocrm.modules.{name.lower()}" for name in names)]
    elif stem.startswith("zohocrm.settings."):
        stems = ["zohocrm.settings", stem]
    else:
        stems = [stem]
    return {f"{each}.{suffix}" for each in stems for suffix in (verb, "all")}


def module_scope_names(module: Module) -> tuple[str, ...]:
    """The names under which scopes know a module."""
    return (module.api_name, "custom") if module.is_custom else (module.api_name,)


def require_module_scope(org: Organisation, call: Call, module: Module, verb: str) -> None:
    """OAUTH_SCOPE_MISMATCH unless the token may do this with the module."""
    if call.grant is not None and not call.grant.allows(f"module.{verb}", module_scope_names(module)):
        raise scope_error(org.config)


def scope_error(config: SandboxConfig) -> ApiError:
    """The token is good, but not for this."""
    return ApiError(config.scope_mismatch_status, "OAUTH_SCOPE_MISMATCH", "invalid oauth scope to access this URL")


def split_scopes(text: str) -> tuple[str, ...]:
    """Scopes separated by commas or blanks."""
    return tuple(text.replace(",", " ").split())


class Accounts:
    """All OAuth state. `config` is asked at each call, since a test may change it."""

    def __init__(self, config: Callable[[], SandboxConfig], *, now: Callable[[], float], rng: Random) -> None:
        self._config = config
        self._now = now
        self._rng = rng
        self.clients: dict[str, Client] = {}
        self.codes: dict[str, Code] = {}
        self.refresh_tokens: dict[str, RefreshToken] = {}
        self.grants: dict[str, Grant] = {}
        self.tokens_issued: list[Grant] = []
        self.consents: bool = True
        self._consented: set[str] = set()
        self._code_times_s: dict[str, deque[float]] = {}
        self.default_client = self.add_client(redirect_uris=("http://127.0.0.1:8085/callback",))
        self.default_refresh_token = self.issue_refresh_token(self.default_client.id)

    # What a test sets up

    def add_client(
        self, *, dc: str | None = None, redirect_uris: tuple[str, ...] = (), is_self: bool = False
    ) -> Client:
        """Registers a client in a data centre; the organisation's own unless told."""
        client = Client(
            f"1000.{self._hex(16).upper()}",
            self._hex(20),
            dc or self._config().data_center,
            redirect_uris,
            is_self,
        )
        self.clients[client.id] = client
        return client

    def issue_refresh_token(self, client_id: str, scopes: Iterable[str] = FULL_SCOPES) -> str:
        """A refresh token; beyond the limit per user and client the oldest dies, with its access tokens."""
        mine = [each for each in self.refresh_tokens.values() if each.client_id == client_id]
        if len(mine) >= self._config().refresh_tokens_per_user:
            self.revoke_refresh_token(mine[0].text)
        token = RefreshToken(self._token_text(), client_id, tuple(scopes))
        self.refresh_tokens[token.text] = token
        return token.text

    def self_client_code(self, client_id: str, scopes: Iterable[str] = FULL_SCOPES, *, life_s: float = 600.0) -> str:
        """A code as the API console makes it by hand."""
        return self._new_code(Code(client_id, tuple(scopes), self._now() + life_s, None, is_offline=True))

    def issue_access_token(self, refresh_text: str | None = None) -> str:
        """An access token without a token call, for tests that are about something else."""
        refresh = self.refresh_tokens[refresh_text or self.default_refresh_token]
        return self._issue(refresh.client_id, refresh.scopes, refresh.text).text

    def revoke_refresh_token(self, text: str) -> bool:
        """The refresh token and all its access tokens are dead; False if it was not alive."""
        if self.refresh_tokens.pop(text, None) is None:
            return False
        for grant in [each for each in self.grants.values() if each.refresh_text == text]:
            del self.grants[grant.text]
        return True

    def expire_access_tokens(self) -> None:
        """Every access token expires now."""
        for grant in self.grants.values():
            grant.expires_at_s = self._now()

    def revoke_scope(self, scope: str) -> None:
        """Takes a scope, spelt as it was granted, from all tokens."""
        self._change_scopes(lambda held: tuple(each for each in held if each.lower() != scope.lower()))

    def grant_scope(self, scope: str) -> None:
        """Gives a scope to all tokens."""
        self._change_scopes(lambda held: (*held, scope))

    def _change_scopes(self, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
        for refresh in self.refresh_tokens.values():
            refresh.scopes = change(refresh.scopes)
        for grant in self.grants.values():
            grant.set_scopes(change(grant.scopes))

    def live_grant(self, text: str) -> Grant | None:
        """The access token with this text, unless it has expired."""
        grant = self.grants.get(text)
        if grant is None or grant.expires_at_s <= self._now():
            return None
        return grant

    def answer(self, call: Call) -> Reply:
        """The answer to a call under /oauth."""
        match call.operation.name:
            case "oauth.auth":
                return self.authorize(call.request)
            case "oauth.token":
                return self.token(call.request)
            case _:
                return self.revoke(call.request)

    # GET /oauth/v2/auth

    def authorize(self, request: Request) -> Reply:
        """Sends the browser back to the client with a code; the user consents at once unless `consents` is off."""
        params = dict(parse_qsl(request.query))
        client = self._client(params.get("client_id"), request.host)
        if client is None:
            return _fault("invalid_client")
        redirect_uri = params.get("redirect_uri", "")
        if redirect_uri not in client.redirect_uris:
            return _fault("invalid_redirect_uri")
        state = {"state": params["state"]} if "state" in params else {}
        if not self.consents or params.get("response_type") != "code" or not self._may_issue_code(client.id):
            return _redirect(redirect_uri, {"error": "access_denied", **state})
        answer = {"code": self._code_for(client, params), **self._whereabouts(client.dc), **state}
        return _redirect(redirect_uri, answer)

    def _code_for(self, client: Client, params: dict[str, str]) -> str:
        asks_again = params.get("prompt") == "consent" or client.id not in self._consented
        self._consented.add(client.id)
        return self._new_code(
            Code(
                client.id,
                split_scopes(params.get("scope", "")),
                self._now() + self._config().auth_code_life_s,
                params.get("redirect_uri"),
                is_offline=params.get("access_type") == "offline" and asks_again,
            )
        )

    def _whereabouts(self, dc: str) -> Json:
        config = self._config()
        local = config.api_domain if dc == config.data_center else None
        server = local or f"https://{DATA_CENTERS[dc].accounts_host}"
        return {"location": dc, "accounts-server": server}

    def _may_issue_code(self, client_id: str) -> bool:
        times_s = self._code_times_s.setdefault(client_id, deque())
        _forget_before(times_s, self._now() - self._config().token_window_s)
        if len(times_s) >= self._config().codes_per_window:
            return False
        times_s.append(self._now())
        return True

    def _new_code(self, code: Code) -> str:
        text = self._token_text()
        self.codes[text] = code
        return text

    # POST /oauth/v2/token

    def token(self, request: Request) -> Reply:
        """Code or refresh token for an access token; parameters come as a form or in the query."""
        params = dict(parse_qsl(request.query)) | dict(parse_qsl(request.body.decode("utf-8", "replace")))
        client = self._client(params.get("client_id"), request.host)
        if client is None:
            return _fault("invalid_client")
        if params.get("client_secret") != client.secret:
            return _fault("invalid_client_secret")
        match params.get("grant_type"):
            case "authorization_code":
                return self._from_code(client, params)
            case "refresh_token":
                return self._from_refresh_token(client, params)
            case _:
                return _fault("unsupported_grant_type")

    def _client(self, client_id: str | None, host: str) -> Client | None:
        client = self.clients.get(client_id or "")
        dc = accounts_dc(host) or self._config().data_center
        return client if client is not None and client.dc == dc else None

    def _from_code(self, client: Client, params: dict[str, str]) -> Reply:
        code = self.codes.get(params.get("code", ""))
        if code is None or code.client_id != client.id or code.expires_at_s <= self._now():
            return _fault("invalid_code")
        if code.redirect_uri is not None and params.get("redirect_uri") != code.redirect_uri:
            return _fault("invalid_redirect_uri")
        del self.codes[params["code"]]
        refresh_text = self.issue_refresh_token(client.id, code.scopes) if code.is_offline else None
        if refresh_text is not None:
            self.refresh_tokens[refresh_text].issued_s.append(self._now())
        grant = self._issue(client.id, code.scopes, refresh_text)
        return Reply(200, self._answer(grant, **({"refresh_token": refresh_text} if refresh_text else {})))

    def _from_refresh_token(self, client: Client, params: dict[str, str]) -> Reply:
        refresh = self.refresh_tokens.get(params.get("refresh_token", ""))
        if refresh is None or refresh.client_id != client.id:
            return _fault("invalid_code")
        if self._is_throttled(refresh):
            return Reply(self._config().token_throttle_status, dict(THROTTLED))
        grant = self._issue(client.id, refresh.scopes, refresh.text)
        extra = {"scope": " ".join(refresh.scopes)} if self._config().scope_in_token_answer else {}
        return Reply(200, self._answer(grant, **extra))

    def _is_throttled(self, refresh: RefreshToken) -> bool:
        config, now_s = self._config(), self._now()
        _forget_before(refresh.issued_s, now_s - config.token_window_s)
        if len(refresh.issued_s) < config.access_tokens_per_window and refresh.refused_until_s <= now_s:
            refresh.issued_s.append(now_s)
            return False
        if config.token_throttle_prolongs:
            refresh.refused_until_s = now_s + config.token_window_s
        return True

    def _issue(self, client_id: str, scopes: tuple[str, ...], refresh_text: str | None) -> Grant:
        now_s = self._now()
        life_s = self._config().access_token_life_s
        dc = self.clients[client_id].dc
        grant = Grant(self._token_text(), client_id, refresh_text, scopes, dc, now_s, now_s + life_s)
        self._evict(refresh_text)
        self.grants[grant.text] = grant
        self.tokens_issued.append(grant)
        return grant

    def _evict(self, refresh_text: str | None) -> None:
        siblings = [each for each in self.grants.values() if each.refresh_text == refresh_text]
        for grant in [each for each in siblings if each.expires_at_s <= self._now()]:
            siblings.remove(grant)
            del self.grants[grant.text]
        while refresh_text is not None and len(siblings) >= self._config().active_access_tokens:
            del self.grants[siblings.pop(0).text]

    def _answer(self, grant: Grant, **extra: Any) -> Json:
        config = self._config()
        local = config.api_domain if grant.dc == config.data_center else None
        life_s = int(config.access_token_life_s)
        answer = {
            "access_token": grant.text,
            **extra,
            "api_domain": local or DATA_CENTERS[grant.dc].api_domain,
            "token_type": "Bearer",
        }
        match config.expires_in_form:
            case "seconds":
                return answer | {"expires_in": life_s}
            case "milliseconds":
                return answer | {"expires_in_sec": life_s, "expires_in": life_s * 1000}
            case "omitted":
                return answer

    # POST /oauth/v2/token/revoke

    def revoke(self, request: Request) -> Reply:
        """Ends a refresh token or an access token; a made-up one gets an HTML page."""
        params = dict(parse_qsl(request.query)) | dict(parse_qsl(request.body.decode("utf-8", "replace")))
        text = params.get("token", "")
        if self.revoke_refresh_token(text) or self.grants.pop(text, None) is not None:
            return Reply(200, {"status": "success"})
        return Reply(400, NO_SUCH_TOKEN_PAGE, {"content-type": "text/html;charset=UTF-8"})

    def _token_text(self) -> str:
        return f"1000.{self._hex(16)}.{self._hex(16)}"

    def _hex(self, size_bytes: int) -> str:
        return self._rng.randbytes(size_bytes).hex()


def _forget_before(times_s: deque[float], limit_s: float) -> None:
    while times_s and times_s[0] <= limit_s:
        times_s.popleft()


def _fault(error: str) -> Reply:
    return Reply(200, {"error": error})


def _redirect(uri: str, params: Json) -> Reply:
    joint = "&" if "?" in uri else "?"
    return Reply(302, None, {"location": f"{uri}{joint}{urlencode(params)}"})
