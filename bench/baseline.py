"""The obvious consumer, as most first versions look: `python -m bench.baseline [at-once]`.

For each message: search the lead, create it if there is none, create the message, create the note; then commit.  With
`at-once` above one it does that for so many messages at a time.  It has none of the service's guarantees.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import aiohttp
import orjson
from aiokafka import AIOKafkaConsumer


class Api:
    """Just enough of Zoho."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._url = os.environ["ZOHO_API_DOMAIN"]
        self._headers: dict[str, str] = {}

    async def log_in(self) -> None:
        """One access token."""
        form = {
            "grant_type": "refresh_token",
            "client_id": os.environ["ZOHO_CLIENT_ID"],
            "client_secret": os.environ["ZOHO_CLIENT_SECRET"],
            "refresh_token": os.environ["ZOHO_REFRESH_TOKEN"],
        }
        async with self._session.post(f"{self._url}/oauth/v2/token", data=form) as response:
            token = orjson.loads(await response.read())["access_token"]
        self._headers = {"Authorization": f"Zoho-oauthtoken {token}"}

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """One call, again while Zoho asks for fewer."""
        while True:
            url = f"{self._url}/crm/v8{path}"
            async with self._session.request(method, url, headers=self._headers, **options) as response:
                body = await response.read()
            if response.status != 429:
                return orjson.loads(body) if body else None
            await asyncio.sleep(0.5)


async def deliver(api: Api, value: bytes) -> None:
    """Bring one message into Zoho."""
    event = orjson.loads(value)
    found = await api.call("GET", "/Leads/search", params={"phone": event["phone"].removeprefix("+")})
    lead_id = found["data"][0]["id"] if found else await _create_lead(api, event)
    message = {
        "Name": event["message_id"],
        "Message_ID": event["message_id"],
        "Lead": {"id": lead_id},
        "Phone": event["phone"],
        "Body": event["text"],
        "Dialog_ID": event["dialog_id"],
    }
    await api.call("POST", "/Messages", json={"data": [message]})
    note = {"Note_Title": "WhatsApp", "Note_Content": f"https://crm.zoho.com/crm/tab/Leads/{lead_id}/Messages"}
    await api.call("POST", f"/Leads/{lead_id}/Notes", json={"data": [note]})


async def _create_lead(api: Api, event: dict[str, Any]) -> str:
    row = {"Last_Name": event["contact_name"], "Phone": event["phone"]}
    answer = await api.call("POST", "/Leads", json={"data": [row]})
    return str(answer["data"][0]["details"]["id"])


async def main(at_once: int) -> None:
    """Consume until killed."""
    consumer = AIOKafkaConsumer(
        "messaging.messages.v1",
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id="baseline",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=6000,
    )
    await consumer.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:
            api = Api(session)
            await api.log_in()
            while True:
                batches = await consumer.getmany(timeout_ms=500, max_records=at_once)
                records = [record for batch in batches.values() for record in batch]
                await asyncio.gather(*(deliver(api, record.value) for record in records))
                if records:
                    await consumer.commit()
    finally:
        await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
