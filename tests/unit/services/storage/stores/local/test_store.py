"""LocalStore beyond the contract: locators that lead outside, disks without links."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.concurrency.lanes import ThreadLane
from backend.errors import InvalidInput, ObjectExists, ObjectMissing, StorageMisconfigured
from backend.services.storage.files import make_folder
from backend.services.storage.stores.local.store import LocalStore
from backend.services.storage.values import NewObject, SpooledFile, StoredObject
from tests.contracts.store_contract import read, spooled

pytestmark = pytest.mark.anyio

KEY = "conv_1/2026/01/15/meeting.wav"

OUTSIDE = (InvalidInput, StorageMisconfigured)


@pytest.fixture
def store(upload_dir: Path) -> LocalStore:
    return LocalStore(str(upload_dir), ThreadLane("disk", 4))


async def put(store: LocalStore, folder: Path, data: bytes = b"data") -> StoredObject:
    source = spooled(data, folder)
    return await store.put(NewObject(source, "audio", KEY, "audio/wav"))


@pytest.mark.parametrize("configured", ["./uploads", "uploads", "uploads/", "./a/../uploads"])
async def test_a_locator_begins_with_the_folder_as_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    store = LocalStore(configured, ThreadLane("disk", 4))
    stored = await put(store, tmp_path)
    assert stored.locator == f"{configured.rstrip('/')}/{KEY}"
    assert await read(store, stored.locator) == b"data"
    assert (tmp_path / "uploads" / KEY).exists()


async def test_other_spellings_of_a_path_inside_are_understood(store: LocalStore, tmp_path: Path) -> None:
    stored = await put(store, tmp_path)
    assert await read(store, str(Path(stored.locator).absolute())) == b"data"


@pytest.mark.parametrize(
    "locator",
    [
        *("/etc/passwd", "{root}/../secret.txt", "{root}/conv_1/../../secret.txt", "{root}-other/x", "s3://bucket/key"),
        *("", "{root}", "{root}/", "{root}/.spool/x", "{root}/a\0b"),
    ],
)
async def test_a_locator_outside_is_refused(store: LocalStore, upload_dir: Path, tmp_path: Path, locator: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    locator = locator.replace("{root}", str(upload_dir))
    with pytest.raises(OUTSIDE):
        await read(store, locator)
    with pytest.raises(OUTSIDE):
        await store.delete(locator)
    with pytest.raises(OUTSIDE):
        await store.access(locator, filename="x", content_type="text/plain")
    assert secret.exists()


async def test_a_link_that_leads_outside_is_refused(store: LocalStore, upload_dir: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "2026/01/15").mkdir(parents=True)
    (outside / "2026/01/15/secret.wav").write_text("secret")
    upload_dir.mkdir()
    (upload_dir / "conv_1").symlink_to(outside)
    (upload_dir / "file.wav").symlink_to(outside / "2026/01/15/secret.wav")
    with pytest.raises(StorageMisconfigured, match="leads out"):
        await read(store, f"{upload_dir}/conv_1/2026/01/15/secret.wav")
    link = f"{upload_dir}/file.wav"
    with pytest.raises(StorageMisconfigured, match="leads out"):
        await read(store, link)
    with pytest.raises(StorageMisconfigured, match="leads out"):
        await store.delete(link)
    with pytest.raises(StorageMisconfigured, match="leads out"):
        await store.stat(link)
    with pytest.raises(StorageMisconfigured, match="leads out"):
        await store.access(link, filename="x", content_type="audio/wav")
    with pytest.raises(StorageMisconfigured, match="leads out"):
        await put(store, tmp_path)
    assert not (outside / "2026/01/15/meeting.wav").exists()
    assert (outside / "2026/01/15/secret.wav").read_text() == "secret"


async def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "uploads").symlink_to(tmp_path / "disk")
    store = LocalStore(str(tmp_path / "uploads"), ThreadLane("disk", 4))
    stored = await put(store, tmp_path)
    assert await read(store, stored.locator) == b"data"


async def test_across_file_systems_the_bytes_are_copied(store: LocalStore, tmp_path: Path) -> None:
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    source = spooled(b"x" * 3_000_000, shared_memory)
    try:
        stored = await store.put(NewObject(source, "audio", KEY, "audio/wav"))
        assert Path(stored.locator).read_bytes() == source.path.read_bytes()
        assert Path(stored.locator).stat().st_mode & 0o777 == 0o600
        with pytest.raises(ObjectExists):
            await store.put(NewObject(source, "audio", KEY, "audio/wav"))
    finally:
        source.path.unlink()


async def test_delete_removes_folders_that_became_empty(store: LocalStore, upload_dir: Path, tmp_path: Path) -> None:
    stored = await put(store, tmp_path)
    neighbour = upload_dir / "conv_1/2026/note.txt"
    neighbour.write_text("stays")
    await store.delete(stored.locator)
    assert sorted(p.name for p in upload_dir.rglob("*")) == ["2026", "conv_1", "note.txt"]
    neighbour.unlink()
    stored = await put(store, tmp_path)
    await store.delete(stored.locator)
    assert list(upload_dir.iterdir()) == []


async def test_a_failed_put_leaves_no_folders(store: LocalStore, upload_dir: Path, tmp_path: Path) -> None:
    gone = SpooledFile(tmp_path / "gone.part", 1, "0" * 64)
    with pytest.raises(ObjectMissing, match=r"gone\.part"):
        await store.put(NewObject(gone, "audio", KEY, "audio/wav"))
    assert list(upload_dir.iterdir()) == []


def test_make_folder_may_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a/b/c").is_dir()
