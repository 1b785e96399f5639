"""Known voices over HTTP: enrolled in one recording, named in the next, forgotten everywhere."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from backend.config import Settings
from backend.database.migrate import SCRIPTS, migrate
from backend.database.session import Database
from backend.domain.transcript import Diarization, SpeakerCount
from backend.domain.voices import Voice
from backend.engines.audio.samples import Audio
from backend.engines.base import Progress
from backend.engines.lazy import Lazy
from backend.engines.scripted import ScriptedTranscriber
from backend.services.speech.pipeline import SpeechPipeline
from backend.wiring.services import Services
from tests.conftest import HEARD, TURNS, api
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

ANNA: Voice = (1.0, 0.0, 0.0)
BEN: Voice = (0.0, 1.0, 0.0)
CLEO: Voice = (0.0, 0.0, 1.0)
ALMOST_ANNA: Voice = (0.9, 0.1, -0.42)


@dataclass
class VoicedDiarizer:
    """Two turns as always; how their speakers sound is told before each recording."""

    name: str = "scripted"
    hear: Callable[[], dict[str, Voice]] = dict

    def diarize(self, audio: Audio, speakers: SpeakerCount, progress: Progress) -> Diarization:
        return Diarization(TURNS, TURNS, self.hear())


@dataclass
class House:
    """A running Aperta whose diarizer can be told what to hear."""

    client: httpx.AsyncClient
    services: Services
    diarizer: VoicedDiarizer
    recording: bytes

    async def process(self, first: Voice | None = ANNA, second: Voice | None = BEN) -> dict:
        voices = {label: voice for label, voice in (("x", first), ("y", second)) if voice is not None}
        self.diarizer.hear = lambda: voices
        answer = await self.client.post("/audio/process", files={"file": ("a.wav", self.recording)})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def add(self, name: str) -> str:
        answer = await self.client.post("/people", json={"name": name})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    async def enrol(self, person: str, conversation: str, speaker: str) -> httpx.Response:
        body = {"conversation_id": conversation, "speaker": speaker}
        return await self.client.post(f"/people/{person}/voice", json=body)

    async def known(self, name: str = "Anna", speaker: str = "Speaker 1") -> str:
        """Somebody enrolled with a speaker of a recording of Anna and Ben."""
        person = await self.add(name)
        answer = await self.enrol(person, (await self.process())["conversation_id"], speaker)
        assert answer.status_code == 201, answer.text
        return person

    async def count(self, what: str) -> int:
        async with self.services.database.transaction() as session:
            return (await session.execute(text(f"SELECT count(*) FROM {what}"))).scalar_one()

    async def stored_voices(self) -> int:
        return await self.count("participant_voices")


@pytest.fixture
def recording(tmp_path: Path) -> bytes:
    return write(tmp_path / "meeting.wav", tone(2.0)).read_bytes()


def speech(diarizer: VoicedDiarizer) -> SpeechPipeline:
    return SpeechPipeline(
        Lazy("scripted", lambda: ScriptedTranscriber(HEARD)), Lazy(diarizer.name, lambda: diarizer), max_audio_s=60
    )


@pytest.fixture
async def house(settings: Settings, recording: bytes) -> AsyncIterator[House]:
    diarizer = VoicedDiarizer()
    async with api(settings.model_copy(update={"known_voices": True}), speech(diarizer)) as (client, services):
        yield House(client, services, diarizer, recording)


def shown(answer: dict) -> list[str]:
    return [segment["speaker"] for segment in answer["transcript"]["segments"]]


async def test_an_enrolled_voice_is_named_in_the_next_recording(house: House) -> None:
    person = await house.known()
    answer = await house.process(first=CLEO, second=ALMOST_ANNA)
    assert shown(answer) == ["Speaker 1", "Anna"]
    assert answer["transcript"]["formatted_transcript"] == "Speaker 1: Good morning.\nAnna: Hello."
    assert answer["transcript"]["speaker_stats"].keys() == {"Speaker 1", "Anna"}
    assert Path(answer["transcript_file_path"]).read_text() == answer["transcript"]["formatted_transcript"]

    url = f"/conversations/{answer['conversation_id']}"
    detail = (await house.client.get(url)).json()
    assert detail["transcript"] == answer["transcript"]
    names = [(item["label"], item["display_name"]) for item in detail["participants"]]
    assert names == [("Speaker 1", None), ("Speaker 2", "Anna")]
    assert await house.count(f"participant_voices WHERE person_id = '{person}'") == 1
    assert (await house.client.get(f"{url}/transcript?format=vtt")).text.count("<v Anna>") == 1
    async with house.services.database.transaction() as session:
        query = f"SELECT transcript FROM conversations WHERE id = '{answer['conversation_id']}'"
        assert (await session.execute(text(query))).scalar_one() == answer["transcript"]["formatted_transcript"]


async def test_the_recording_that_somebody_was_enrolled_from_stays_as_it_was(house: House) -> None:
    person = await house.add("Anna")
    answer = await house.process()
    assert (await house.enrol(person, answer["conversation_id"], "Speaker 1")).status_code == 201
    detail = (await house.client.get(f"/conversations/{answer['conversation_id']}")).json()
    assert detail["transcript"] == answer["transcript"]


async def test_people_are_told_apart_and_strangers_stay_numbered(house: House) -> None:
    first = (await house.process())["conversation_id"]
    for name, speaker in (("Anna", "Speaker 1"), ("Ben", "Speaker 2")):
        assert (await house.enrol(await house.add(name), first, speaker)).status_code == 201
    assert shown(await house.process(BEN, ANNA)) == ["Ben", "Anna"]
    assert shown(await house.process(ANNA, ANNA)) == ["Anna", "Speaker 2"]
    assert shown(await house.process((0.7, 0.7, 0.0), CLEO)) == ["Speaker 1", "Speaker 2"]
    assert shown(await house.process(None, None)) == ["Speaker 1", "Speaker 2"]


async def test_prints_add_up_and_the_same_one_counts_once(house: House) -> None:
    person = await house.known()
    named = await house.process(ALMOST_ANNA, CLEO)
    for speaker in ("Anna", "Speaker 1"):  # the shown name and the label are the same speaker
        answer = await house.enrol(person, named["conversation_id"], speaker)
        assert answer.status_code == 201 and len(answer.json()["prints"]) == 2
    body = (await house.client.get(f"/people/{person}")).json()
    assert body["name"] == "Anna" and body["created_at"].endswith("Z")
    assert body["prints"][1].keys() == {"conversation_id", "model", "created_at"}
    assert body["prints"][1]["conversation_id"] == named["conversation_id"]


async def test_a_deleted_person_is_forgotten_everywhere_but_in_past_text(house: House) -> None:
    person = await house.known()
    named = await house.process(ALMOST_ANNA, BEN)
    assert shown(named) == ["Anna", "Speaker 2"]
    assert await house.count("voice_prints") == 1 and await house.stored_voices() == 4

    assert (await house.client.delete(f"/people/{person}")).status_code == 204

    assert (await house.client.get(f"/people/{person}")).status_code == 404
    assert await house.count("people") == await house.count("voice_prints") == 0
    assert await house.stored_voices() == 2  # Ben's, in both recordings
    detail = (await house.client.get(f"/conversations/{named['conversation_id']}")).json()
    assert detail["transcript"] == named["transcript"]
    assert shown(await house.process()) == ["Speaker 1", "Speaker 2"]
    assert (await house.client.delete(f"/people/{person}")).status_code == 404


async def test_deleting_a_voice_keeps_the_person(house: House) -> None:
    person = await house.known()
    before = (await house.process(ALMOST_ANNA, BEN))["conversation_id"]
    assert (await house.client.delete(f"/people/{person}/voice")).status_code == 204
    assert (await house.client.get(f"/people/{person}")).json()["prints"] == []
    assert await house.count("voice_prints") == 0 and await house.stored_voices() == 2
    refused = await house.enrol(person, before, "Anna")
    assert refused.status_code == 409 and "Process the recording again" in refused.json()["detail"]
    again = await house.process()
    assert shown(again) == ["Speaker 1", "Speaker 2"]
    assert (await house.enrol(person, again["conversation_id"], "Speaker 1")).status_code == 201


async def test_the_voice_of_an_unnamed_speaker_is_forgotten_too(house: House) -> None:
    await house.process(ALMOST_ANNA, BEN)  # Anna before anybody knew her
    person = await house.known()
    assert (await house.client.delete(f"/people/{person}")).status_code == 204
    assert await house.stored_voices() == 2


async def test_who_is_forgotten_while_a_recording_is_processed_leaves_no_voice(house: House) -> None:
    person = await house.known()
    storage, save = house.services.storage, house.services.storage.save_transcript

    async def forget_then_save(*args: object, **options: object) -> object:
        await house.client.delete(f"/people/{person}")
        return await save(*args, **options)

    storage.save_transcript = forget_then_save  # type: ignore[method-assign]
    answer = await house.process(ANNA, CLEO)
    assert shown(answer) == ["Anna", "Speaker 2"]
    detail = (await house.client.get(f"/conversations/{answer['conversation_id']}")).json()
    assert detail["transcript"] == answer["transcript"]
    assert await house.stored_voices() == 2  # Ben's and Cleo's


async def test_deleting_a_conversation_keeps_the_print_and_drops_its_voices(house: House) -> None:
    person = await house.known()
    conversation = (await house.client.get(f"/people/{person}")).json()["prints"][0]["conversation_id"]
    assert (await house.client.delete(f"/conversations/{conversation}")).status_code == 204
    assert (await house.client.get(f"/people/{person}")).json()["prints"][0]["conversation_id"] is None
    assert await house.stored_voices() == 0
    assert shown(await house.process()) == ["Anna", "Speaker 2"]


async def test_prints_of_another_engine_are_not_compared(house: House) -> None:
    await house.known()
    house.diarizer.name = "another"
    assert shown(await house.process()) == ["Speaker 1", "Speaker 2"]


async def test_a_result_waits_for_a_database_that_is_away(house: House, tmp_path: Path) -> None:
    lost = threading.Event()

    def rename(before: str, after: str) -> None:
        with closing(sqlite3.connect(tmp_path / "rows.db")) as connection:
            connection.execute(f"ALTER TABLE {before} RENAME TO {after}")

    def lose_tables() -> dict[str, Voice]:
        rename("segments", "lost")
        lost.set()
        return {"x": ANNA}

    house.diarizer.hear = lose_tables
    async with asyncio.TaskGroup() as group:
        request = group.create_task(
            house.client.post("/audio/process", files={"file": ("a.wav", house.recording)}, timeout=30)
        )
        while not lost.is_set():
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert not request.done()
        rename("lost", "segments")
    assert request.result().status_code == 200


async def test_people_are_listed_by_name_and_paged(house: House) -> None:
    for name in ("Cleo", "Anna", "Ben"):
        await house.add(name)
    page = (await house.client.get("/people?limit=2")).json()
    assert [item["name"] for item in page["people"]] == ["Anna", "Ben"] and page["total"] == 3
    rest = (await house.client.get("/people?limit=2&offset=2")).json()
    assert [item["name"] for item in rest["people"]] == ["Cleo"]
    assert (await house.client.get("/people?limit=0")).status_code == 422


async def test_a_name_is_taken_once_also_at_the_same_moment(house: House) -> None:
    answers = await asyncio.gather(*(house.client.post("/people", json={"name": " Anna "}) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert await house.count("people") == 1


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 201},
        {"name": "Speaker 2"},
        {"name": "a\nb"},
        {"name": "a\x00b"},
        {"name": None},
        {},
        [],
        {"name": "Anna", "nmae": "Ben"},
    ],
)
async def test_names_that_cannot_be_shown_are_refused(house: House, body: object) -> None:
    answer = await house.client.post("/people", json=body)
    if body == {"name": "a\nb"}:  # a line break is a blank like any other
        assert answer.status_code == 201 and answer.json()["name"] == "a b"
        return
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert await house.count("people") == 0


async def test_enrolling_says_what_is_missing(house: House) -> None:
    person = await house.add("Anna")
    answer = await house.process(ANNA, None)
    conversation = answer["conversation_id"]
    for args, status, said in [
        (("person_nope", conversation, "Speaker 1"), 404, "person_nope"),
        (("a%00b", conversation, "Speaker 1"), 404, "no person"),
        ((person, "conv_nope", "Speaker 1"), 404, "conv_nope"),
        ((person, conversation, "Speaker 3"), 404, "Speaker 1, Speaker 2"),
        ((person, conversation, "Speaker 2"), 409, "Process the recording again"),
        ((person, conversation, ""), 422, "speaker"),
        ((person, "", "Speaker 1"), 422, "conversation_id"),
    ]:
        refused = await house.enrol(*args)
        assert refused.status_code == status and said in refused.json()["detail"], refused.text
        assert refused.headers["content-type"] == "application/problem+json"
    assert await house.count("voice_prints") == 0


async def test_one_voice_is_not_enrolled_for_two_people(house: House) -> None:
    anna = await house.known()
    conversation = (await house.client.get(f"/people/{anna}")).json()["prints"][0]["conversation_id"]
    refused = await house.enrol(await house.add("Ben"), conversation, "Speaker 1")
    assert refused.status_code == 409 and "Anna" in refused.json()["detail"]


async def test_a_failed_conversation_has_nobody_to_enrol(house: House) -> None:
    person = await house.add("Anna")
    conversation = (await house.process())["conversation_id"]
    async with house.services.database.transaction() as session:
        await session.execute(text("UPDATE conversations SET status = 'failed'"))
    refused = await house.enrol(person, conversation, "Speaker 1")
    assert refused.status_code == 409 and "failed" in refused.json()["detail"]


async def test_off_by_default_nothing_is_kept_and_every_route_says_so(settings: Settings, recording: bytes) -> None:
    assert settings.known_voices is False
    diarizer = VoicedDiarizer()
    async with api(settings, speech(diarizer)) as (client, services):
        house = House(client, services, diarizer, recording)
        answer = await house.process()
        assert shown(answer) == ["Speaker 1", "Speaker 2"]
        assert await house.stored_voices() == 0
        voice = {"conversation_id": answer["conversation_id"], "speaker": "Speaker 1"}
        for method, path, body in [
            ("POST", "/people", {"name": "Anna"}),
            ("GET", "/people", None),
            ("GET", "/people/person_x", None),
            ("DELETE", "/people/person_x", None),
            ("POST", "/people/person_x/voice", voice),
            ("DELETE", "/people/person_x/voice", None),
        ]:
            refused = await client.request(method, path, json=body)
            assert refused.status_code == 409 and "KNOWN_VOICES" in refused.json()["detail"], (method, path)
        assert await house.count("people") == await house.count("voice_prints") == 0


async def test_switched_off_later_nobody_is_recognised_but_can_be_forgotten(
    settings: Settings, recording: bytes
) -> None:
    diarizer = VoicedDiarizer()
    async with api(settings.model_copy(update={"known_voices": True}), speech(diarizer)) as (client, services):
        person = await House(client, services, diarizer, recording).known()
    async with api(settings, speech(diarizer)) as (client, services):
        house = House(client, services, diarizer, recording)
        assert shown(await house.process()) == ["Speaker 1", "Speaker 2"]
        assert await house.stored_voices() == 2  # from before
        assert (await client.delete(f"/people/{person}/voice")).status_code == 204
        assert await house.count("voice_prints") == 0 and await house.stored_voices() == 1
        assert (await client.delete(f"/people/{person}")).status_code == 204
        assert await house.count("people") == 0


async def test_all_of_it_on_postgresql(settings: Settings, recording: bytes, postgres_url: str) -> None:
    await migrate(postgres_url)
    diarizer = VoicedDiarizer()
    on = settings.model_copy(update={"known_voices": True, "database_url": postgres_url})
    async with api(on, speech(diarizer)) as (client, services):
        house = House(client, services, diarizer, recording)
        person = await house.known()
        assert (await client.post("/people", json={"name": "Anna"})).status_code == 409
        assert (await client.get("/people/a%00b")).status_code == 404
        named = await house.process(CLEO, ALMOST_ANNA)
        assert shown(named) == ["Speaker 1", "Anna"]
        assert (await house.enrol(person, named["conversation_id"], "Anna")).status_code == 201
        assert (await client.delete(f"/people/{person}")).status_code == 204
        assert await house.count("voice_prints") == 0 and await house.stored_voices() == 2
        detail = (await client.get(f"/conversations/{named['conversation_id']}")).json()
        assert detail["transcript"] == named["transcript"]


async def test_the_migration_keeps_what_was_there(settings: Settings) -> None:
    def upgrade_to_first(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    database = Database(settings.database_url)
    async with database.engine.connect() as connection:
        await connection.run_sync(upgrade_to_first)
        await connection.commit()
    async with database.transaction() as session:
        for statement in (
            "INSERT INTO conversations (id, status, filename, created_at) VALUES ('c', 'completed', 'f', '2026-01-01')",
            "INSERT INTO participants VALUES (1, 'c', 0, 'Speaker 1', NULL, 1, 1, 1, 1)",
            "INSERT INTO segments VALUES (1, 'c', 1, 0, 0, 1, 'Hello.', NULL)",
        ):
            await session.execute(text(statement))
    assert await migrate(settings.database_url) is True
    async with database.transaction() as session:
        query = "SELECT text, label FROM segments JOIN participants ON participant_id = participants.id"
        assert (await session.execute(text(query))).all() == [("Hello.", "Speaker 1")]
    await database.close()
