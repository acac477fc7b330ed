"""Bytes on their way: the same content gives the same blob, and a changed one is refused."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest
from covalent._workflow.transportable_object import TransportableObject
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.aws.blobs import Encoder, Source, decode, stage
from covalent_cirro.contract.references import Blob
from covalent_cirro.electron.local_packages import locate, pack
from covalent_cirro.errors import DigestMismatch, SettingsError

CONTENTS = st.one_of(st.binary(max_size=3000), st.binary(min_size=1, max_size=20).map(lambda data: data * 500))


def encoded(data: bytes) -> tuple[Blob, bytes]:
    """A blob and its stored bytes."""
    file = io.BytesIO()
    encoder = Encoder(file)
    encoder.write(data)
    return encoder.finish(), file.getvalue()


@given(CONTENTS)
def test_a_blob_comes_back_as_it_was_and_has_one_name(data: bytes) -> None:
    """Round trip; the name is a function of the content."""
    blob, stored = encoded(data)
    out = io.BytesIO()
    decode([stored[:7], stored[7:]], blob, out.write)
    assert out.getvalue() == data
    assert encoded(data) == (blob, stored)
    assert (blob.size, blob.raw_size) == (len(stored), len(data))


@given(CONTENTS.filter(len), st.data())
def test_a_blob_that_was_changed_or_cut_is_refused(data: bytes, draw: st.DataObject) -> None:
    """Whichever byte it was."""
    blob, stored = encoded(data)
    place = draw.draw(st.integers(0, len(stored) - 1))
    changed = bytearray(stored)
    changed[place] ^= 0xFF
    for broken in (bytes(changed), stored[:place], stored + b"x"):
        with pytest.raises(DigestMismatch):
            decode([broken], blob, io.BytesIO().write)


def test_what_decodes_to_more_than_it_says_is_stopped() -> None:
    """A bomb fills no disk."""
    blob, stored = encoded(b"a" * 10_000_000)
    out = io.BytesIO()
    with pytest.raises(DigestMismatch, match="more than"):
        decode([stored], blob._replace(raw_size=1000), out.write)
    assert len(out.getvalue()) <= 1000


def test_compressing_is_done_where_it_helps() -> None:
    """Text shrinks; noise is left as it is, without a byte more."""
    assert encoded(b"hyperparameter " * 10_000)[0].codec == "zlib"
    noise = random.Random(1).randbytes(1_000_000)
    assert encoded(noise)[0] == Blob(encoded(noise)[0].sha256, len(noise), "raw", len(noise))


def test_a_pickle_is_stored_without_covalents_base64(tmp_path: Path) -> None:
    """A quarter less than the file that Covalent keeps."""
    path = tmp_path / "value.tobj"
    noise = random.Random(2).randbytes(3_000_000)
    path.write_bytes(TransportableObject(noise).serialize())
    source = Source(str(path), is_tobj=True)
    staged = stage(source, str(tmp_path / "cache"))
    assert staged.blob.size == source.size() < 1.001 * len(noise)


def test_equal_values_make_one_blob_whatever_their_text(tmp_path: Path) -> None:
    """Covalent's file has str(value), which for objects has an address in it."""
    blobs = []
    for index, text in enumerate(("<f at 0x1>", "<f at 0x2>")):
        made = TransportableObject(b"x" * 50_000)
        made._object_string = text
        path = tmp_path / f"{index}.tobj"
        path.write_bytes(made.serialize())
        blobs.append(stage(Source(str(path), is_tobj=True), str(tmp_path)).blob)
    assert blobs[0] == blobs[1]


def test_nothing_is_left_behind_when_a_source_cannot_be_read(tmp_path: Path) -> None:
    """The staging folder stays as it was."""
    (tmp_path / "broken.tobj").write_bytes(b"not one")
    with pytest.raises(ValueError, match="too short"):
        stage(Source(str(tmp_path / "broken.tobj"), is_tobj=True), str(tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []


def a_package(folder: Path) -> Path:
    """A package with a subpackage, data, and what does not belong into an archive."""
    root = folder / "mypkg"
    (root / "sub").mkdir(parents=True)
    for left_out in ("__pycache__", ".git", ".cirro", "venv"):
        (root / left_out).mkdir()
        (root / left_out / "file.py").touch()
    (root / "__init__.py").write_text("from mypkg.sub import value")
    (root / "sub" / "__init__.py").write_text("value = 7")
    (root / "data.csv").write_text("1,2")
    (root / "__pycache__" / "x.pyc").write_text("")
    return root


def test_an_archive_holds_the_package_with_its_data_and_nothing_made(tmp_path: Path) -> None:
    """What Python imports, and files beside it."""
    archive = pack(a_package(tmp_path), str(tmp_path / "cache"))
    assert zipfile.ZipFile(archive).namelist() == ["mypkg/__init__.py", "mypkg/data.csv", "mypkg/sub/__init__.py"]


def test_equal_packages_make_equal_archives(tmp_path: Path) -> None:
    """Byte for byte, so that they are sent once."""
    archives = [pack(a_package(tmp_path / name), str(tmp_path / name)) for name in ("a", "b")]
    assert Path(archives[0]).read_bytes() == Path(archives[1]).read_bytes()


def test_a_package_that_did_not_change_is_not_packed_again_and_one_that_did_is(tmp_path: Path) -> None:
    """An edit is seen at the next electron."""
    root = a_package(tmp_path)
    first = pack(root, str(tmp_path / "cache"))
    assert pack(root, str(tmp_path / "cache")) == first
    (root / "sub" / "__init__.py").write_text("value = 8888")
    assert pack(root, str(tmp_path / "cache")) != first


def test_a_package_is_found_by_import_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder of a package, file of a module."""
    root = a_package(tmp_path)
    (tmp_path / "single.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate("mypkg") == locate(str(root)) == root.resolve()
    assert locate("single") == (tmp_path / "single.py").resolve()


def test_a_package_in_a_package_travels_with_the_one_that_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it nobody could import it. Nothing of it is run here."""
    root = a_package(tmp_path)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "sub" / "module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for item in ("mypkg", "mypkg.sub", "mypkg.sub.module"):
        assert locate(item) == root.resolve()
    with pytest.raises(SettingsError, match=r"mypkg has no sub\.other in it"):
        locate("mypkg.sub.other")
    with pytest.raises(SettingsError, match="colorsys is no package"):
        locate("colorsys.rgb_to_hls")


def test_a_package_of_several_folders_is_refused_with_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them alone would be half of it; a package in it is in one."""
    for name in ("one", "two"):
        (tmp_path / name / "shared_space" / f"of_{name}").mkdir(parents=True)
        monkeypatch.syspath_prepend(str(tmp_path / name))
    with pytest.raises(SettingsError, match=r"in 2 folders: .*two.*one"):
        locate("shared_space")
    assert locate("shared_space.of_one") == tmp_path / "one" / "shared_space"


@pytest.mark.parametrize("item", [".", "./", "..", "./sub", "~/sub", "sub/../sub", "./single.py"])
def test_what_begins_with_a_dot_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: str) -> None:
    """Of the folder where the client runs, or the home folder."""
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "here" / "single.py").write_text("")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    expected = {"~/sub": "sub", "sub/../sub": "sub"}.get(item, item)
    assert locate(item) == (tmp_path / "here" / expected).resolve()


def test_a_linked_folder_travels_as_if_it_were_there(tmp_path: Path) -> None:
    """And so does a linked file; a link that leads nowhere does not."""
    root = a_package(tmp_path)
    other = tmp_path / "elsewhere"
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "model.py").write_text("x = 1")
    (root / "linked").symlink_to(other)
    (root / "again.py").symlink_to(other / "deep" / "model.py")
    (root / "nowhere.py").symlink_to(tmp_path / "gone.py")
    names = zipfile.ZipFile(pack(root, str(tmp_path / "cache"))).namelist()
    assert names == [
        *("mypkg/__init__.py", "mypkg/again.py", "mypkg/data.csv"),
        *("mypkg/linked/deep/model.py", "mypkg/sub/__init__.py"),
    ]


@pytest.mark.parametrize("target", [".", "..", "../..", "sub"])
def test_a_link_to_a_folder_that_it_lies_in_is_refused(tmp_path: Path, target: str) -> None:
    """It would be packed without end; its name is told."""
    root = a_package(tmp_path)
    (root / "sub" / "around").symlink_to(root / "sub" if target == "sub" else Path(target))
    with pytest.raises(SettingsError, match=r"sub/around.* leads to .*no end"):
        pack(root, str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["my-lab", "my lab", "2lab", "my.lab"])
def test_a_package_that_nobody_can_import_is_refused(tmp_path: Path, name: str) -> None:
    """Before a job is paid for; a folder of modules may have any name."""
    folder = tmp_path / name
    folder.mkdir()
    assert locate(str(folder)) == folder
    (folder / "__init__.py").write_text("")
    for path in (folder, tmp_path / f"{name}.py"):
        path.touch()
        with pytest.raises(SettingsError, match=r"nobody can import .* Rename it"):
            locate(str(path))


@pytest.mark.parametrize("item", ["no_such_package", "/no/such/folder", "sys"])
def test_what_cannot_be_packed_is_refused_with_its_name(item: str) -> None:
    """When the executor is made, not in the container."""
    with pytest.raises(SettingsError, match=item):
        locate(item)
