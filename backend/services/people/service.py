"""Known voices: enrolling people, recognising them in recordings, and forgetting them.

Voice prints are biometric data. With KNOWN_VOICES=off nothing is recognised and no embedding is stored. Forgetting
erases a person's prints and every stored voice of a speaker who was, or sounds like, that person; names that
transcripts already show are text and stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import conversations
from backend.database.models import Conversation, Participant, Person, VoicePrint
from backend.database.people import (
    delete_person,
    delete_voices,
    delete_voices_of,
    find_participant_voice,
    find_print_owner,
    get_person,
    list_participants,
    list_people,
    list_prints,
    participant_voices,
)
from backend.database.session import Database
from backend.domain.states.conversations import ConversationStatus
from backend.domain.voices import SpeakerIdentity, Voice, person_name, recognise, resembling, show_names
from backend.errors import Conflict, NotFound
from backend.services.people.views import PersonView, view_of
from backend.services.speech.values import SpeechResult

Prints = dict[str, list[Voice]]


class PeopleService:
    """
    Args:
        enabled: KNOWN_VOICES. Without it every method raises Conflict, except that who is enrolled can be forgotten.
    """

    def __init__(self, database: Database, *, enabled: bool) -> None:
        self._database = database
        self._enabled = enabled

    async def create(self, name: str) -> PersonView:
        """A person without a voice yet.

        Raises:
            InvalidInput: not a name that a transcript can show.
            Conflict: another person has this name.
        """
        self._check_enabled()
        person = Person(id=f"person_{uuid4().hex}", name=person_name(name), created_at=datetime.now(UTC), prints=[])
        try:
            async with self._database.transaction() as session:
                session.add(person)
        except IntegrityError as error:
            raise Conflict(
                f"There is a person called {person.name!r} already. Choose another name, so that transcripts tell the "
                "two apart."
            ) from error
        return view_of(person)

    async def list(self, *, limit: int, offset: int) -> tuple[Sequence[PersonView], int]:
        """A page of people with their prints, by name, and the number of all."""
        self._check_enabled()
        async with self._database.transaction() as session:
            rows, total = await list_people(session, limit=limit, offset=offset)
            return [view_of(row) for row in rows], total

    async def get(self, person_id: str) -> PersonView:
        """One person with their prints.

        Raises:
            NotFound
        """
        self._check_enabled()
        async with self._database.transaction() as session:
            return view_of(await get_person(session, person_id))

    async def add_voice(self, person_id: str, conversation_id: str, speaker: str) -> PersonView:
        """Enrol a person with the voice of a speaker; doing so twice changes nothing.

        Args:
            speaker: the label ("Speaker 2"), or the name that the transcript shows.

        Returns:
            The person with all prints.

        Raises:
            NotFound: no such person, conversation, or speaker in it.
            Conflict: no voice of this speaker is stored, or it is another person's.
        """
        self._check_enabled()
        try:
            async with self._database.transaction() as session:
                person = await get_person(session, person_id, lock=True)
                conversation = await conversations.get_conversation(session, conversation_id)
                participant = await self._find_speaker(session, conversation, speaker)
                await self._enrol(session, person, conversation, participant)
        except IntegrityError as error:  # on SQLite nothing locks what was read
            raise NotFound("The person or the conversation was deleted in this moment.") from error
        return view_of(person)

    async def delete(self, person_id: str) -> None:
        """Forget a person: voices, prints, the row. Also possible while known voices are off.

        Raises:
            NotFound
        """
        async with self._database.transaction() as session:
            person = await self._get_to_forget(session, person_id)
            await self._erase(session, person)
            await delete_person(session, person)

    async def delete_voice(self, person_id: str) -> None:
        """Forget how a person sounds, and keep the name. Also possible while known voices are off.

        Raises:
            NotFound
        """
        async with self._database.transaction() as session:
            await self._erase(session, await self._get_to_forget(session, person_id))

    async def recognise(self, speech: SpeechResult) -> tuple[SpeechResult, Mapping[str, SpeakerIdentity]]:
        """Put names to the speakers whose voice is known.

        Returns:
            The result with names in place of labels; and what to store of each speaker that has a voice, by the name
            that the result shows: nothing while known voices are off.
        """
        if not self._enabled or not speech.voices:
            return speech, {}
        people, prints = await self._load_prints(speech.engines["diarization"])
        found = recognise(speech.voices, prints)
        names = {label: people[person_id] for label, person_id in found.items()}
        identities = {
            names.get(label, label): SpeakerIdentity(label, voice, found.get(label))
            for label, voice in speech.voices.items()
        }
        stats = {names.get(label, label): stat for label, stat in speech.stats.items()}
        return replace(speech, transcript=show_names(speech.transcript, names), stats=stats), identities

    def _check_enabled(self) -> None:
        if not self._enabled:
            raise Conflict(
                "Known voices are off (KNOWN_VOICES=off), because voice prints are biometric data. To recognise people "
                "who agreed to it, set KNOWN_VOICES=on and start Aperta again."
            )

    async def _get_to_forget(self, session: AsyncSession, person_id: str) -> Person:
        """People can always be deleted. A missing person is reported only while known voices are enabled."""
        try:
            return await get_person(session, person_id, lock=True)
        except NotFound:
            self._check_enabled()
            raise

    async def _find_speaker(self, session: AsyncSession, conversation: Conversation, speaker: str) -> Participant:
        if conversation.status != ConversationStatus.COMPLETED:
            raise Conflict(f"The conversation is {conversation.status}; only a completed one has speakers.")
        participants = await list_participants(session, conversation.id)
        for name in ("label", "display_name"):
            found = next((item for item in participants if getattr(item, name) == speaker), None)
            if found is not None:
                return found
        shown = ", ".join(item.display_name or item.label for item in participants) or "nobody"
        raise NotFound(f"There is no speaker {speaker!r} in this conversation. There is: {shown}.")

    async def _enrol(
        self, session: AsyncSession, person: Person, conversation: Conversation, participant: Participant
    ) -> None:
        voice = await find_participant_voice(session, participant.id)
        if voice is None:
            raise Conflict(
                f"No voice of {participant.label} is stored: the recording was processed while KNOWN_VOICES was off or "
                "by an engine that gives none, or the voice was forgotten. Process the recording again."
            )
        owner = await find_print_owner(session, voice)
        if owner is not None and owner.id != person.id:
            raise Conflict(
                f"This voice is {owner.name}'s already ({owner.id}). If that was a mistake, delete that voice, process "
                "the recording again and enrol its speaker."
            )
        if owner is None:
            person.prints.append(
                VoicePrint(
                    conversation_id=conversation.id,
                    embedding=voice,
                    model=(conversation.engines or {}).get("diarization", ""),
                    created_at=datetime.now(UTC),
                )
            )

    async def _erase(self, session: AsyncSession, person: Person) -> None:
        prints = [item.embedding for item in person.prints]
        await delete_voices_of(session, person.id)
        async for voices in participant_voices(session):
            await delete_voices(session, resembling(voices, prints))
        person.prints.clear()

    async def _load_prints(self, model: str) -> tuple[dict[str, str], Prints]:
        """Person id → name, and person id → prints of this model."""
        people: dict[str, str] = {}
        prints: Prints = {}
        async with self._database.transaction() as session:
            for person, voice in await list_prints(session, model):
                people[person.id] = person.name
                prints.setdefault(person.id, []).append(voice)
        return people, prints
