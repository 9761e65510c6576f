"""Who may come in: host, token, scopes, the form of the request, credits and calls in flight."""

from __future__ import annotations

from sandbox.zoho.call import Call, Reply
from sandbox.zoho.data_centers import api_host
from sandbox.zoho.errors import ApiError, BareRefusal, param_error
from sandbox.zoho.limits import Concurrency, CreditLedger, throttle_body
from sandbox.zoho.model import Request
from sandbox.zoho.oauth import Accounts, Grant, module_scope_names, scope_error
from sandbox.zoho.org import Organisation

AUTH_SCHEME = "Zoho-oauthtoken "
TOO_LARGE_PAGE = b"<html><body><h1>413 Request Entity Too Large</h1></body></html>"


class Gate:
    """Admits calls one by one; each admitted call holds a slot until `leave`."""

    def __init__(self, org: Organisation, accounts: Accounts) -> None:
        self._org = org
        self._accounts = accounts
        self.credits = CreditLedger()
        self.concurrency = Concurrency()

    # Who

    def identify(self, call: Call) -> None:
        """Host and token.

        Raises:
            ApiError: the token is missing, wrong or expired, or its user is inactive.
            BareRefusal: the organisation does not answer on this host.
        """
        host = api_host(call.request.host)
        config = self._org.config
        if host is not None and host != (config.data_center, config.org_type):
            raise BareRefusal(401)
        call.grant = self._authenticate(call.request)
        call.entry.client_id = call.grant.client_id

    def _authenticate(self, request: Request) -> Grant:
        config = self._org.config
        header = request.header("authorization")
        if header is None or not header.startswith(AUTH_SCHEME):
            raise ApiError(401, "AUTHENTICATION_FAILURE", "Authentication failed")
        grant = self._accounts.live_grant(header.removeprefix(AUTH_SCHEME))
        if grant is None or grant.dc != config.data_center:
            code = config.invalid_token_code
            message = "invalid oauth token" if code == "INVALID_TOKEN" else "Authentication failed"
            raise ApiError(401, code, message)
        if not self._org.user.is_active:
            raise self._inactive_user()
        return grant

    def _inactive_user(self) -> ApiError:
        if self._org.config.inactive_user == "no_permission":
            permissions = {"permissions": ["Crm_Implied_Api_Access"]}
            return ApiError(403, "NO_PERMISSION", "permission denied", permissions)
        return ApiError(401, "AUTHENTICATION_FAILURE", "Authentication failed")

    # What

    def check_request(self, call: Call) -> None:
        """Size, content type, JSON, parameters and scopes.

        Raises:
            ApiError, BareRefusal: Zoho would not take this request.
        """
        config = self._org.config
        if len(call.request.body) > config.max_body_bytes:
            raise BareRefusal(413, TOO_LARGE_PAGE, {"content-type": "text/html;charset=UTF-8"})
        if call.operation.takes_json and not _is_json(call.request):
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the content type is not supported")
        if call.request.header("x-external") is not None:
            raise ApiError(400, "NOT_SUPPORTED", "external fields are not supported", {"header": "X-EXTERNAL"})
        unknown = call.params.keys() - call.operation.params
        if unknown and config.unknown_params == "reject":
            raise param_error(min(unknown), "the param given seems to be invalid")
        if call.body_error is not None:
            raise call.body_error
        self._check_scopes(call)

    def _check_scopes(self, call: Call) -> None:
        names = module_scope_names(call.module) if call.module else ()
        for needed in call.operation.scopes:
            stem, _, verb = needed.partition(".")
            is_note = stem == "notes"
            need, its_names = (f"module.{verb}", ("notes",)) if is_note else (needed, names)
            if call.grant is None or not call.grant.allows(need, its_names):
                raise scope_error(self._org.config)

    # How much

    def enter(self, call: Call) -> Reply | None:
        """Books the credits and takes a slot; else the 429."""
        now_s = self._org.clock()
        cost = call.operation.credits(self._org, call)
        call.entry.is_heavy = call.operation.is_heavy(self._org, call)
        has_credits = self.credits.used(now_s) + cost <= self._org.config.credit_limit
        if has_credits and self.concurrency.has_room(self._org.config, is_heavy=call.entry.is_heavy):
            self._spend(call, cost, now_s)
            self.take_slot(call)
            return None
        if self._org.config.throttled_call_costs_credit:
            self._spend(call, 1, now_s)
        wait_s = self._org.config.retry_after_s
        headers = {"retry-after": str(wait_s)} if wait_s is not None else {}
        return Reply(429, throttle_body(self._org.config), headers)

    def _spend(self, call: Call, credits: int, now_s: float) -> None:
        call.entry.credits = credits
        self.credits.spend(credits, now_s=now_s)

    def take_slot(self, call: Call) -> None:
        """The call is in flight."""
        call.has_slot = True
        self.concurrency.enter(is_heavy=call.entry.is_heavy)
        self._org.journal.admitted(
            call.entry,
            in_flight=self.concurrency.in_flight,
            heavy_in_flight=self.concurrency.heavy_in_flight,
        )

    def leave(self, call: Call) -> None:
        """The call is over."""
        if call.has_slot:
            call.has_slot = False
            self.concurrency.leave(is_heavy=call.entry.is_heavy)

    def credit_headers(self) -> dict[str, str]:
        """`X-API-CREDITS-REMAINING`, only once half of the day's credits are used [v8 api-limits]."""
        used, limit = self.credits.used(self._org.clock()), self._org.config.credit_limit
        return {"X-API-CREDITS-REMAINING": str(max(0, limit - used))} if 2 * used >= limit else {}


def _is_json(request: Request) -> bool:
    content_type = request.header("content-type") or ""
    return content_type.partition(";")[0].strip().lower() == "application/json"
