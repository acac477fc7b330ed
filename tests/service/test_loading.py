"""What the service takes for a model, and what it refuses, with the reason."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import recommender_service
import safetensors.numpy
from moto.server import ThreadedMotoServer
from recommender_service import answers
from recommender_service.loading import Loaded, NotLoaded, load, received
from recommender_service.prepare import ModelRefused, _from_folder, prepared

from benchmarks.serving_model import MadeModel, made, write, write_files

PACKAGE = Path(recommender_service.__file__).parent
VERSION = "20260101T000000Z-0a1b2c3d"
NAMES = ("weights.safetensors", "rated.safetensors", "catalogue.json")
Files = dict[str, bytes]


@pytest.fixture
def copy(model: MadeModel, tmp_path: Path) -> Path:
    """The small model in a folder that a test may change."""
    return write(model, tmp_path / VERSION)


def loaded(folder: Path) -> Loaded:
    """The model of a folder, without a process for it."""
    return received(prepared(_from_folder(str(folder)), str(folder)))


def refusal(folder: Path) -> str:
    """Why the model of a folder is refused."""
    with pytest.raises(ModelRefused) as caught:
        loaded(folder)
    return str(caught.value)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Loaded]:
    """The model of a URI, as the service gets it: by way of a process, which finds the package."""
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")  # as in the image
    return lambda uri: asyncio.run(load(uri))


def test_a_folder_is_a_model(served: Callable[[str], Loaded], copy: Path) -> None:
    """By its path, or as a ``file:`` URI."""
    for uri in (str(copy), copy.as_uri(), f"{copy}/"):
        found = served(uri)
        assert (found.name, found.version, found.model.users, found.model.items) == ("movies", VERSION, 30, 40)


def test_a_folder_with_a_space_and_an_accent(served: Callable[[str], Loaded], model: MadeModel, tmp_path: Path) -> None:
    """Its URI is read as URIs are written."""
    assert served(write(model, tmp_path / "modèles de films" / VERSION).as_uri()).version == VERSION


def test_ids_may_be_text(model: MadeModel, tmp_path: Path) -> None:
    """Of any script; none is taken for another one."""
    users = [f"person {number}" for number in range(28)] + ["ü", "長い名前"]
    catalogue = loaded(write(model._replace(users=users), tmp_path / VERSION)).catalogue
    assert [catalogue.users.row(user) for user in users] == list(range(30))
    assert [catalogue.users.row(text) for text in ("", "person", "person 1 ", "person 1\0", "zz", "9")] == [None] * 6
    assert json.loads(catalogue.user_id("長い名前")) == "長い名前"


def test_titles_and_ids_of_items_may_be_any_text(model: MadeModel, tmp_path: Path) -> None:
    """Quotation marks, commas, backslashes, control characters, any script."""
    odd = ['a,"b', 'comma, "quoted"', "back\\slash", "\x00\n\t", "映画 🎬", ""]
    changed = model._replace(items=[*odd, *model.items[6:]], titles=[*reversed(odd), *model.titles[6:]])
    found = loaded(write(changed, tmp_path / VERSION))
    assert [found.catalogue.items.row(item) for item in odd] == list(range(6))
    everything = found.model.best([0], [40])[0]
    triples = json.loads(answers.triples(found.catalogue, everything))["response"]
    named = json.loads(answers.recommended(found.catalogue, "1", everything))["items"]
    rows = everything.rows.tolist()
    assert [triple[:2] for triple in triples] == [[changed.items[row], changed.titles[row]] for row in rows]
    assert [[each["item"], each["title"]] for each in named] == [triple[:2] for triple in triples]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_another_digest_is_refused(copy: Path, name: str) -> None:
    """One byte is enough; the error names the file and both digests."""
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    said = refusal(copy)
    assert f"{name} of the model {copy} has {len(data)} bytes with the SHA-256 " in said
    assert "changed or cut after the model was registered" in said


def test_a_file_that_is_cut_is_refused(copy: Path) -> None:
    """By its size and its digest."""
    path = copy / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "the file was changed or cut" in refusal(copy)


class Harmful:
    """A pickle of this would write a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def torch_zip(content: bytes) -> bytes:
    """The form in which ``torch.save`` writes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return file.getvalue()


@pytest.mark.parametrize("form", [bytes, torch_zip], ids=["pickle", "torch.save"])
@pytest.mark.parametrize("name", ["weights.safetensors", "rated.safetensors"])
def test_a_pickle_is_refused_and_not_opened(
    copy: Path, tmp_path: Path, name: str, form: Callable[[bytes], bytes]
) -> None:
    """Also where the registry says its true digest: whoever can register a model must not run code here."""
    files = {each: (copy / each).read_bytes() for each in NAMES}
    trap = tmp_path / "opened"
    write_files({**files, name: form(pickle.dumps(Harmful(trap)))}, copy)
    said = refusal(copy)
    assert f"{name} of the model {copy} is not in safetensors' format" in said
    assert "a pickle runs code" in said
    assert not trap.exists()


def test_no_module_of_the_service_can_unpickle() -> None:
    """None imports what does."""
    sources = [path.read_text() for path in PACKAGE.glob("*.py")]
    assert len(sources) > 5
    for source in sources:
        assert not re.search(r"import (pickle|torch|joblib|marshal|dill)|np\.load|allow_pickle=True", source)


@pytest.mark.parametrize("name", ["model.json", *NAMES])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    """With its path."""
    (copy / name).unlink()
    assert f"No such file or directory: '{copy / name}'" in refusal(copy)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "has format 2, and this service reads 1: deploy a newer image"),
        ({"version": "other"}, "is that of version 'other'"),
        ({"files": {}}, "does not describe weights.safetensors, rated.safetensors, catalogue.json"),
        ({"files": None}, "does not describe"),
    ],
)
def test_a_document_that_does_not_fit(copy: Path, change: dict[str, Any], why: str) -> None:
    """``model.json`` of another format, of another version, or without the files that are needed."""
    document = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**document, **change}))
    assert why in refusal(copy)


def test_a_document_that_is_no_json(copy: Path) -> None:
    """The parser's words."""
    (copy / "model.json").write_text("weights")
    assert "JSONDecodeError" in refusal(copy)


def not_finite(model: MadeModel) -> MadeModel:
    """One vector has a NaN."""
    user = model.tensors["user"].copy()
    user[3, 1] = np.nan
    return model._replace(tensors={**model.tensors, "user": user})


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (not_finite, "user has values that are no finite numbers"),
        (lambda m: m._replace(users=[1] * 30), "catalogue.json has 30 users, 1 different, for 30 rows"),
        (lambda m: m._replace(items=m.items[1:]), "catalogue.json has 39 items, 39 different, for 40 rows"),
        (lambda m: m._replace(titles=m.titles[1:]), "has 39 titles for 40"),
        (lambda m: m._replace(popular=[0, 0]), "popular items of catalogue.json are not rows of the model"),
        (lambda m: m._replace(popular=[40]), "popular items of catalogue.json are not rows of the model"),
        (lambda m: m._replace(rated=m.rated[1:]), "does not divide"),
        (lambda m: m._replace(rated=[[40], *m.rated[1:]]), "has items that the model has not"),
        (lambda m: m._replace(rated=[[5, 5], *m.rated[1:]]), "are not ascending"),
        (
            lambda m: m._replace(tensors={**m.tensors, "bias_item": m.tensors["bias_item"][1:]}),
            "bias_item has the shape (39,) instead of (40,)",
        ),
        (
            lambda m: m._replace(tensors={**m.tensors, "item": m.tensors["item"].astype(np.float64)}),
            "item is float64 instead of float32",
        ),
        (
            lambda m: m._replace(tensors={name: m.tensors[name] for name in m.tensors if name != "bias"}),
            "'bias' is missing",
        ),
    ],
)
def test_files_that_do_not_fit_together(
    model: MadeModel, tmp_path: Path, spoil: Callable[[MadeModel], MadeModel], why: str
) -> None:
    """They are found while the model is loaded, not in the middle of an answer."""
    assert why in refusal(write(spoil(model), tmp_path / VERSION))


def test_extra_tensors_and_files_are_left_alone(copy: Path) -> None:
    """A newer trainer may register more than this service needs."""
    files = {each: (copy / each).read_bytes() for each in NAMES}
    weights = safetensors.numpy.load(files["weights.safetensors"])
    more = safetensors.numpy.save({**weights, "momentum": np.zeros(3, np.float32)})
    write_files({**files, "weights.safetensors": more, "curve.csv": b"1,2"}, copy)
    assert loaded(copy).version == VERSION


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 on the loopback, where the service's process finds it, too."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="cirro")
        yield client
        client.close()
    server.stop()


def test_a_model_in_s3(s3: Any, served: Callable[[str], Loaded], copy: Path) -> None:
    """The same model as in a folder; a changed object is refused as a changed file is; a missing one is named."""
    prefix = f"cirro/models/movies/{VERSION}"
    for path in copy.iterdir():
        s3.put_object(Bucket="cirro", Key=f"{prefix}/{path.name}", Body=path.read_bytes())
    uri = f"s3://cirro/{prefix}"
    found = served(uri)
    assert (found.name, found.version) == ("movies", VERSION)
    assert found.model.best([0], [3])[0].rows.tolist() == loaded(copy).model.best([0], [3])[0].rows.tolist()
    s3.put_object(Bucket="cirro", Key=f"{prefix}/rated.safetensors", Body=b"other bytes")
    with pytest.raises(NotLoaded, match=rf"rated\.safetensors of the model {uri} has 11 bytes"):
        served(uri)
    s3.delete_object(Bucket="cirro", Key=f"{prefix}/rated.safetensors")
    with pytest.raises(NotLoaded, match=rf"rated\.safetensors of the model {uri} cannot be read: .*NoSuchKey"):
        served(uri)


def test_a_large_model_is_checked_in_the_same_way(tmp_path: Path) -> None:
    """As many users and items as in MovieLens 1M."""
    model = made(ratings=20_000)
    found = loaded(write(model, tmp_path / VERSION))
    assert (found.model.users, found.model.items) == (6_040, 3_706)
