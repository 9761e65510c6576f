"""Tokens: one for all, kept over restarts, never asked for in vain."""

from __future__ import annotations

import asyncio
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from consumer.core.errors import HaltedError, SyncError, TransientError
from consumer.core.limits import Limiter
from consumer.zoho.auth import Credentials, HttpTokenEndpoint, TokenCache, TokenSource, lifetime_s
from tests.zoho.room import Client, Value, World, delivery, number, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Accounts:
    """Zoho Accounts, with a script of answers; the last one goes on for ever."""

    def __init__(self, *answers: Any, takes_s: float = 0.0) -> None:
        self.answers = list(answers)
        self.takes_s = takes_s
        self.asked: list[dict[str, str]] = []

    async def __call__(self, form: dict[str, str]) -> tuple[int, object]:
        self.asked.append(form)
        await asyncio.sleep(self.takes_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return (200, {"access_token": f"token-{len(self.asked)}", "expires_in": 3600}) if answer == "good" else answer


class Clock:
    """A wall clock that a test can set; by default the loop's."""

    def __init__(self) -> None:
        self.shift_s = 1_000_000.0

    def __call__(self) -> float:
        return self.shift_s + asyncio.get_running_loop().time()


def source(accounts: Accounts, clock: Clock | None = None, secret: Value | None = None, **more: Any) -> TokenSource:
    secrets = Credentials(Value("id"), Value("secret"), secret or Value("refresh"))
    return TokenSource(secrets, accounts, wall_clock=clock or Clock(), random=lambda: 0.5, **more)


async def code_of(work: Any) -> str:
    with pytest.raises(SyncError) as caught:
        await work
    return caught.value.code


THROTTLED = (400, {"error": "Access Denied", "error_description": "You have made too many requests continuously."})


def test_five_hundred_callers_with_one_stale_token_cause_one_refresh() -> None:
    """All who hold a refused token wait for the same refresh."""

    async def scenario() -> None:
        accounts = Accounts("good", takes_s=0.5)
        tokens = source(accounts)
        stale = await tokens.token()
        await asyncio.gather(*(tokens.refused(stale) for _ in range(500)))
        assert len(accounts.asked) == 2
        assert await tokens.token() == "token-2"

    run(scenario())


def test_who_comes_second_finds_a_new_token_and_does_not_refresh() -> None:
    """A refusal of a token that is no longer the current one is settled."""

    async def scenario() -> None:
        accounts = Accounts("good")
        tokens = source(accounts)
        stale = await tokens.token()
        await tokens.refused(stale)
        await tokens.refused(stale)
        assert len(accounts.asked) == 2

    run(scenario())


def test_a_cancelled_caller_cancels_nothing_for_the_others() -> None:
    """The refresh goes on when the caller that began it is cancelled."""

    async def scenario() -> None:
        accounts = Accounts("good", takes_s=1.0)
        tokens = source(accounts)
        first = asyncio.create_task(tokens.token())
        second = asyncio.create_task(tokens.token())
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == "token-1"
        assert len(accounts.asked) == 1

    run(scenario())


def test_a_token_is_renewed_early_while_calls_go_on() -> None:
    """Some minutes before a token ends it is renewed in the background, and nobody waits."""

    async def scenario() -> None:
        accounts = Accounts("good", takes_s=2.0)
        tokens = source(accounts)
        await tokens.token()
        await asyncio.sleep(3600 - 420 + 60)
        before = asyncio.get_running_loop().time()
        assert await tokens.token() == "token-1"
        assert asyncio.get_running_loop().time() == before
        await asyncio.sleep(3)
        assert await tokens.token() == "token-2"

    run(scenario())


def test_processes_renew_at_different_moments() -> None:
    """The early moment has jitter, so that replicas do not ask all at once."""

    async def moment(draw: float) -> float:
        secrets = Credentials(Value("id"), Value("secret"), Value("refresh"))
        accounts = Accounts("good")
        tokens = TokenSource(secrets, accounts, wall_clock=Clock(), random=lambda: draw)
        await tokens.token()
        while len(accounts.asked) < 2:
            await asyncio.sleep(1)
            await tokens.token()
        return asyncio.get_running_loop().time()

    assert run(moment(0.0)) > run(moment(0.9)) + 60


def test_a_hanging_refresh_ends_by_itself() -> None:
    """A refresh has its own time limit, whatever the endpoint does."""

    async def scenario() -> None:
        tokens = source(Accounts("good", takes_s=10_000), timeout_s=20.0)
        assert await code_of(tokens.token()) == "TOKEN_NO_ANSWER"
        assert asyncio.get_running_loop().time() <= 21

    run(scenario())


@pytest.mark.parametrize("status", [200, 201, 400, 500])
@pytest.mark.parametrize("body", [{}, {"token_type": "Bearer"}, None, [], {"access_token": ""}, {"access_token": 7}])
def test_an_answer_without_access_token_is_an_error_whatever_its_status(status: int, body: Any) -> None:
    """The status of a token answer means nothing."""

    async def scenario() -> None:
        with pytest.raises(TransientError):
            await source(Accounts((status, body))).token()

    run(scenario())


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"expires_in": 3600}, 3600),
        ({"expires_in": "3600"}, 3600),
        ({"expires_in_sec": 3600, "expires_in": 3_600_000}, 3600),
        ({"expires_in": 3_600_000}, 3600),
        ({}, 3600),
        ({"expires_in": None}, 3600),
        ({"expires_in": 0}, 3600),
        ({"expires_in": True}, 3600),
        ({"expires_in": 120}, 120),
    ],
)
def test_the_life_of_a_token_in_each_of_zohos_units(fields: dict[str, Any], seconds: float) -> None:
    """Seconds, milliseconds, or nothing at all, which means an hour."""
    assert lifetime_s(fields) == seconds


@pytest.mark.parametrize("form", ["seconds", "omitted", "milliseconds"])
@pytest.mark.parametrize("code", ["INVALID_TOKEN", "AUTHENTICATION_FAILURE"])
def test_an_expired_token_costs_one_refresh_and_no_failure(form: str, code: str) -> None:
    """A token that Zoho has forgotten is replaced and the call repeated, under either of Zoho's codes."""

    async def scenario() -> None:
        world = World({"expires_in_form": form, "invalid_token_code": code})
        client = Client(world)
        await client.resolve(number(1))
        world.step("expire_access_tokens")
        await client.resolve(number(2))
        assert len(world.dump("Leads")) == 2
        assert client.told.refreshes == ["ok", "ok"]

    run(scenario())


def test_calls_that_waited_longer_than_a_token_lives_go_with_a_new_one() -> None:
    """The day's credits were used up: when they come back, no call is wasted on the token of yesterday."""

    async def scenario() -> None:
        world = World()
        client = Client(world, limiter=Limiter(max_concurrency=10, daily_credits=5000))
        await client.parent(number(0))
        client.limiter.ledger.spend(5000, asyncio.get_running_loop().time())
        await asyncio.gather(*(client.parent(number(index)) for index in range(1, 30)))
        assert client.told.refreshes == ["ok", "ok"]
        assert "INVALID_TOKEN" not in {entry.code for entry in world.engine.journal.calls}

    run(scenario())


@pytest.mark.parametrize("status", [200, 400])
def test_zohos_own_token_limit_is_never_reached(status: int) -> None:
    """Tokens that die every twenty seconds for half an hour: work slows down, but Zoho has no reason to throttle."""

    async def scenario() -> None:
        world = World({"token_throttle_status": status})
        client = Client(world)
        work = asyncio.create_task(client.deliver([delivery(f"m{index}", number(index)) for index in range(300)]))
        for _ in range(90):
            await asyncio.sleep(20)
            world.step("expire_access_tokens")
            await client.resolve(number(1000))
        answers = [entry.code for entry in world.engine.journal.calls if entry.operation == "oauth.token"]
        assert set(answers) == {None}
        await work
        assert len(world.dump("Messages")) == 300

    run(scenario())


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("envelope", ["top", "data"])
def test_a_missing_scope_halts_and_never_refreshes(status: int, envelope: str) -> None:
    """OAUTH_SCOPE_MISMATCH is not the token's fault: one token, a halt that says what to do, and on it goes."""

    async def scenario() -> None:
        world = World({"scope_mismatch_status": status, "auth_error_envelope": envelope})
        client = Client(world)
        world.step("revoke_scope", scope="ZohoCRM.coql.READ")
        [found] = await client.resolve(number(1))
        assert (found.code, found.halted) == ("OAUTH_SCOPE_MISMATCH", True)
        assert client.told.refreshes == ["ok"]
        assert ("people.find", "OAUTH_SCOPE_MISMATCH") in [halt[:2] for halt in client.gate.halts()]
        world.step("grant_scope", scope="ZohoCRM.coql.READ")
        assert (await client.parent(number(1))).module == "Leads"
        assert client.gate.halts() == []

    run(scenario())


def test_a_fresh_token_that_is_refused_halts_without_buying_more() -> None:
    """A deactivated user or a wrong host does not burn the ten tokens that Zoho gives."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.step("deactivate_user")
        waiting = asyncio.create_task(client.parent(number(1)))
        await asyncio.sleep(250)
        assert len(world.engine.accounts.tokens_issued) == 2
        assert [halt[:2] for halt in client.gate.halts()] == [("*", "TOKEN_REFUSED")]
        world.step("activate_user")
        before = asyncio.get_running_loop().time()
        assert (await waiting).module == "Leads"
        assert asyncio.get_running_loop().time() - before <= 70

    run(scenario())


def test_a_token_that_works_again_is_replaced_like_any_other_when_it_expires() -> None:
    """Once the user is active again, nothing is left of the suspicion against the token."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        world.step("deactivate_user")
        await client.resolve(number(1))
        world.step("activate_user")
        await client.parent(number(1))
        world.step("expire_access_tokens")
        before = asyncio.get_running_loop().time()
        await client.parent(number(2))
        assert asyncio.get_running_loop().time() - before < 10

    run(scenario())


@pytest.mark.parametrize("code", ["invalid_code", "invalid_client", "invalid_client_secret"])
def test_a_dead_grant_halts_says_so_and_goes_on_with_a_new_secret(code: str) -> None:
    """No call is wasted on a dead grant; some seconds after the secret file changed all goes on."""

    async def scenario() -> None:
        accounts = Accounts((200, {"error": code}), "good")
        secret = Value("dead")
        tokens = source(accounts, secret=secret)
        with pytest.raises(HaltedError) as caught:
            await tokens.token()
        assert caught.value.code == f"TOKEN_{code.upper()}"
        assert caught.value.advice
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s <= 5
        for _ in range(20):
            await asyncio.sleep(3)
            await code_of(tokens.token())
        assert len(accounts.asked) == 1
        secret.value = "alive"
        assert await tokens.token() == "token-2"
        assert accounts.asked[-1]["refresh_token"] == "alive"

    run(scenario())


def test_a_revoked_grant_stops_all_work_until_the_secret_is_replaced() -> None:
    """Through all layers: calls wait, and go on seconds after the new refresh token is in place."""

    async def scenario() -> None:
        world = World()
        client = Client(world)
        good = client.secrets["refresh_token"].value
        client.secrets["refresh_token"].value = "1000.revoked"
        waiting = asyncio.create_task(client.parent(number(1)))
        await asyncio.sleep(120)
        assert [halt[:2] for halt in client.gate.halts()] == [("*", "TOKEN_INVALID_CODE")]
        client.secrets["refresh_token"].value = good
        before = asyncio.get_running_loop().time()
        await waiting
        assert asyncio.get_running_loop().time() - before < 10
        assert client.gate.halts() == []

    run(scenario())


def test_a_throttled_grant_pauses_for_the_rest_of_the_window() -> None:
    """Asking again would prolong it: the pause ends when the first token of the window is ten minutes old."""

    async def scenario() -> None:
        accounts = Accounts("good", THROTTLED, "good")
        tokens = source(accounts)
        first = await tokens.token()
        await asyncio.sleep(100)
        assert await code_of(tokens.refused(first)) == "TOKEN_THROTTLED"
        await asyncio.sleep(499)
        assert await code_of(tokens.refused(first)) == "TOKEN_THROTTLED"
        assert len(accounts.asked) == 2
        await asyncio.sleep(2)
        await tokens.refused(first)
        assert len(accounts.asked) == 3

    run(scenario())


def test_a_second_throttle_in_a_row_waits_a_whole_window() -> None:
    """Somebody else uses the grant, so we do not know when its window began."""

    async def scenario() -> None:
        accounts = Accounts(THROTTLED, THROTTLED, "good")
        tokens = source(accounts)
        await code_of(tokens.token())
        await asyncio.sleep(601)
        await code_of(tokens.token())
        await asyncio.sleep(598)
        await code_of(tokens.token())
        assert len(accounts.asked) == 2
        await asyncio.sleep(3)
        assert await tokens.token()

    run(scenario())


def test_it_never_asks_for_more_tokens_than_zoho_gives() -> None:
    """However often Zoho refuses tokens, at most eight are asked for in ten minutes."""

    async def scenario() -> None:
        accounts = Accounts("good")
        tokens = source(accounts)
        for _ in range(590):
            try:
                await tokens.refused(await tokens.token())
            except HaltedError as error:
                assert error.code == "TOKEN_THROTTLED"  # noqa: PT017 - only a part of the attempts fails
            await asyncio.sleep(1)
        assert len(accounts.asked) <= 8

    run(scenario())


def test_an_accounts_server_that_is_down_is_asked_with_backoff() -> None:
    """Hundreds of calls that need a token do not become hundreds of requests to a server that is down."""

    async def scenario() -> None:
        accounts = Accounts(TransientError("TOKEN_NO_ANSWER"))
        tokens = source(accounts)
        for _ in range(600):
            await code_of(tokens.token())
            await asyncio.sleep(0.1)
        assert len(accounts.asked) <= 12

    run(scenario())


# -- the cache file -----------------------------------------------------------------------------------------------


def test_a_crash_loop_costs_one_token(tmp_path: Path) -> None:
    """Twenty restarts find the token in the file."""

    async def scenario() -> None:
        accounts = Accounts("good")
        clock = Clock()
        for _ in range(20):
            tokens = source(accounts, clock, cache=TokenCache(tmp_path / "token.json"))
            assert await tokens.token() == "token-1"
            await asyncio.sleep(10)
        assert len(accounts.asked) == 1

    run(scenario())


def test_several_processes_share_one_token_and_one_refresh(tmp_path: Path) -> None:
    """When the shared token is refused, one process renews it and the others read the file."""

    async def scenario() -> None:
        accounts = Accounts("good", takes_s=0.5)
        clock = Clock()
        processes = [source(accounts, clock, cache=TokenCache(tmp_path / "token.json")) for _ in range(5)]
        assert set(await asyncio.gather(*(each.token() for each in processes))) == {"token-1"}
        await asyncio.gather(*(each.refused("token-1") for each in processes))
        assert set(await asyncio.gather(*(each.token() for each in processes))) == {"token-2"}
        assert len(accounts.asked) == 2

    run(scenario())


def test_the_cache_file_is_private_and_never_half_written(tmp_path: Path) -> None:
    """Mode 0600, replaced in one step, nothing left beside it."""

    async def scenario() -> None:
        path = tmp_path / "deep" / "token.json"
        await source(Accounts("good"), cache=TokenCache(path)).token()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sorted(each.name for each in path.parent.iterdir()) == ["token.json", "token.json.lock"]

    run(scenario())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": 1}', '{"key": "x", "token": {}}', "\xff"])
def test_a_broken_cache_file_costs_one_token(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file, the service starts."""

    async def scenario() -> None:
        path = tmp_path / "token.json"
        path.write_text(text, "latin-1")
        assert await source(Accounts("good"), cache=TokenCache(path)).token() == "token-1"

    run(scenario())


def test_a_volume_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """Without a usable cache the token lives in memory."""

    async def scenario() -> None:
        file = tmp_path / "file"
        file.write_text("in the way")
        cache = TokenCache(file / "token.json")
        assert await source(Accounts("good"), cache=cache).token() == "token-1"

    run(scenario())


def test_a_new_refresh_token_does_not_use_the_old_ones_file(tmp_path: Path) -> None:
    """The file belongs to one grant: another secret gets its own token."""

    async def scenario() -> None:
        accounts = Accounts("good")
        cache = TokenCache(tmp_path / "token.json")
        await source(accounts, cache=cache).token()
        assert await source(accounts, secret=Value("other"), cache=cache).token() == "token-2"

    run(scenario())


def test_a_throttle_is_remembered_over_a_restart(tmp_path: Path) -> None:
    """A process that starts within the pause does not prolong it by asking."""

    async def scenario() -> None:
        accounts = Accounts(THROTTLED, "good")
        clock = Clock()
        cache = TokenCache(tmp_path / "token.json")
        await code_of(source(accounts, clock, cache=cache).token())
        for _ in range(5):
            await asyncio.sleep(100)
            assert await code_of(source(accounts, clock, cache=cache).token()) == "TOKEN_THROTTLED"
        assert len(accounts.asked) == 1
        await asyncio.sleep(101)
        assert await source(accounts, clock, cache=cache).token() == "token-2"

    run(scenario())


def test_a_crash_loop_with_a_token_that_zoho_refuses_stays_within_the_limit(tmp_path: Path) -> None:
    """Restarts count the tokens of their predecessors."""

    async def scenario() -> None:
        accounts = Accounts("good")
        clock = Clock()
        cache = TokenCache(tmp_path / "token.json")
        for _ in range(20):
            tokens = source(accounts, clock, cache=cache)
            with suppress(HaltedError):
                await tokens.refused(await tokens.token())
        assert len(accounts.asked) <= 8

    run(scenario())


@pytest.mark.parametrize("jump_s", [-100_000.0, 100_000.0])
def test_a_clock_that_jumps_stops_nothing(tmp_path: Path, jump_s: float) -> None:
    """A wrong clock costs a token at most, and no pause of days."""

    async def scenario() -> None:
        accounts = Accounts(THROTTLED, "good")
        clock = Clock()
        cache = TokenCache(tmp_path / "token.json")
        await code_of(source(accounts, clock, cache=cache).token())
        clock.shift_s += jump_s
        tokens = source(accounts, clock, cache=cache)
        for _ in range(700):
            try:
                assert await tokens.token() == "token-2"
            except HaltedError:
                await asyncio.sleep(1)
            else:
                return
        raise AssertionError

    run(scenario())


def test_secrets_travel_in_the_body_and_to_zoho_only() -> None:
    """The address of a token request holds no secret, and a stranger's host is refused before anything is sent."""
    refused: list[Callable[[], Any]] = [
        lambda url=url: HttpTokenEndpoint(None, url)  # type: ignore[misc, arg-type]
        for url in (
            "https://accounts.zoho.com.evil.example",
            "http://accounts.zoho.com",
            "https://evil.example/accounts.zoho.com",
            "https://accounts.zoho.com@evil.example",
            "https://accounts.zoho.com:8443",
        )
    ]
    for attempt in refused:
        with pytest.raises(ValueError, match="not an accounts host"):
            attempt()
