"""Objects other than weights in files of PyTorch: read, rejected by name, or bounded."""

import argparse
import collections
import datetime
import enum
import io
import os
import pathlib
import random
import types
import warnings
import zipfile
import zoneinfo

import numpy as np
import pytest

from lstm_optax.interop import read_torch

pytestmark = pytest.mark.slow
both_formats = pytest.mark.parametrize("zipped", [True, False])


@pytest.fixture
def torch():
    """PyTorch; skip without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch")


class Color(enum.Enum):
    RED = 1


class Options(dict):
    pass


Point = collections.namedtuple("Point", "x y")
NOW = datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.UTC)
HARMLESS = {
    "number": (np.float64(1.5), np.float64(1.5)),
    "flag": (np.bool_(True), np.bool_(True)),
    "array": (np.arange(6, dtype=">i2").reshape(2, 3), np.arange(6, dtype=np.int16).reshape(2, 3)),
    "columns": (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6.0).reshape(2, 3)),
    "empty": (np.zeros((0, 3)), np.zeros((0, 3))),
    "path": (pathlib.Path("/a/b"), pathlib.PurePosixPath("/a/b")),
    "windows": (pathlib.PureWindowsPath("c:/b"), pathlib.PureWindowsPath("c:/b")),
    "default": (collections.defaultdict(list, a=[1]), {"a": [1]}),
    "points": (collections.defaultdict(Point, a=2), {"a": 2}),
    "ordered": (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "counter": (collections.Counter("aab"), {"a": 2, "b": 1}),
    "set": ({1, (2, 3)}, {1, (2, 3)}),
    "frozen": (frozenset({"a"}), frozenset({"a"})),
    "deque": (collections.deque([1, 2], 5), [1, 2]),
    "namespace": (
        argparse.Namespace(rate=np.float32(0.5), out=pathlib.Path("x")),
        argparse.Namespace(rate=np.float32(0.5), out=pathlib.PurePosixPath("x")),
    ),
    "simple": (types.SimpleNamespace(a=[1]), types.SimpleNamespace(a=[1])),
    "now": (NOW, NOW),
    "span": (datetime.timedelta(1, 2), datetime.timedelta(1, 2)),
    "complex": (1 + 2j, 1 + 2j),
    "bytes": (b"\xff\x00", b"\xff\x00"),
    "no bytes": (b"", b""),
    "bytearray": (bytearray(b"ab"), bytearray(b"ab")),
    "range": (range(3), range(3)),
    "large": (-(2**70), -(2**70)),
}


def save(torch, content, path, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@both_formats
@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_object_is_read(torch, tmp_path, name, zipped):
    thing, expected = HARMLESS[name]
    saved = {"w": torch.arange(3.0), "extra": {"it": [thing]}}
    read = read_torch(save(torch, saved, tmp_path / "a.pt", zipped))
    (found,) = read["extra"]["it"]
    assert type(found) is type(expected)
    np.testing.assert_equal(found, expected)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and found.flags.writeable
    np.testing.assert_array_equal(read["w"], [0, 1, 2])


def test_objects_of_torch_become_plain(torch, tmp_path):
    saved = [
        torch.Size([1, 2]),
        torch.bfloat16,
        torch.device("cpu"),
        torch.nn.Parameter(torch.ones(2)),
    ]
    size, dtype, device, parameter = read_torch(save(torch, saved, tmp_path / "a.pt"))
    assert (size, type(size), dtype, device) == ((1, 2), tuple, "torch.bfloat16", "cpu")
    np.testing.assert_array_equal(parameter, [1, 1])


@pytest.mark.parametrize("protocol, named", [(0, "0 or 1"), (1, "0 or 1"), (4, "4"), (5, "5")])
@both_formats
def test_rejects_pickle_protocol_torch_cannot_read(torch, tmp_path, protocol, named, zipped):
    options = dict(pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    torch.save({"w": torch.ones(2)}, tmp_path / "file.pt", **options)
    with pytest.raises(ValueError, match=f"a pickle of protocol {named}, .* reads 2 and 3: save"):
        read_torch(tmp_path / "file.pt")


def test_error_names_class_method_and_key(torch, tmp_path):
    torch.save({"zone": zoneinfo.ZoneInfo("UTC")}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"file.pt\['zone'\] is an object of builtins.getattr"):
        read_torch(tmp_path / "file.pt")


def test_generator_state_of_numpy_is_read(torch, tmp_path):
    generator = np.random.RandomState(3)
    read = read_torch(save(torch, generator.get_state(), tmp_path / "a.pt"))
    drawn = generator.normal(size=3)
    generator.set_state(read)
    np.testing.assert_array_equal(generator.normal(size=3), drawn)


REFUSED = {
    "enum": (lambda torch: Color.RED, r"an object of .*Color;"),
    "named tuple": (lambda torch: Point(1, 2), r"an object of .*Point;"),
    "subclass": (lambda torch: Options(a=1), r"an object of .*Options;"),
    "class": (lambda torch: Color, r".*Color, a class or function;"),
    "function": (lambda torch: len, r"builtins.len, a class or function;"),
    "objects": (lambda torch: np.array([1, "a"], object), "made: its dtype is 'O8', and only numb"),
    "module": (lambda torch: torch.nn.Linear(1, 1), "an object of torch.nn.modules.linear.Linear;"),
    "abstract": (lambda torch: torch.ones(2, device="meta"), "a tensor of .* the device meta"),
}


@both_formats
@pytest.mark.parametrize("name", REFUSED)
def test_error_names_object_and_key(torch, tmp_path, name, zipped):
    make, message = REFUSED[name]
    content = {"w": torch.ones(2), "a": {3: ["x", make(torch)]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.save warns about the source of a module
        path = save(torch, content, tmp_path / "a.pt", zipped)
    with pytest.raises(
        ValueError, match=rf"a.pt is refused: a.pt\['a'\]\[3\]\[1\] (is|cannot be) {message}"
    ):
        read_torch(path)


class Call:
    """An object whose unpickling calls a function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def traps(marker):
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.mkdir": Call(os.mkdir, str(marker)),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "getattr": Call(getattr, pathlib.Path(marker), "touch"),
        "in a path": Call(pathlib.PurePosixPath, Call(eval, code)),
        "in a default": collections.defaultdict(list, a=Call(exec, code)),
        "in a namespace": argparse.Namespace(a=Call(exec, code)),
        "as a factory": Call(collections.defaultdict, Call(eval, f"lambda: {code}")),
        "numpy's loader": Call(np.load, str(marker)),
        "torch's": Call(__import__, "torch.utils.collect_env"),
    }


@both_formats
@pytest.mark.parametrize("name", list(traps("")))
def test_code_in_file_does_not_run(torch, tmp_path, name, zipped):
    marker = tmp_path / "marker"
    path = save(torch, {"w": torch.ones(1), "trap": traps(marker)[name]}, tmp_path / "a.pt", zipped)
    with pytest.raises(ValueError, match=r"a.pt is refused: a.pt\['trap'\]"):
        read_torch(path)
    assert not marker.exists()


def test_allow_list_of_torch_is_restored(torch, tmp_path):
    before = set(torch.serialization.get_safe_globals())
    read_torch(save(torch, {"p": pathlib.Path("a")}, tmp_path / "a.pt"))
    assert set(torch.serialization.get_safe_globals()) == before


@both_formats
@pytest.mark.parametrize("shape", [(300_000_000,), (1000, 1000, 1000)])
def test_rejects_expanded_view(torch, tmp_path, shape, zipped):
    path = save(torch, {"w": [torch.zeros(1).expand(shape)]}, tmp_path / "a.pt", zipped)
    assert path.stat().st_size < 2000
    figures = f"{4 * np.prod(shape):,} bytes when it is copied and 4 in the file"
    with pytest.raises(ValueError, match=rf"a.pt\['w'\]\[0\] is a tensor .* {figures}"):
        read_torch(path)


def test_rejects_many_overlapping_views(torch, tmp_path):
    base = torch.arange(50_000.0)
    views = [base[i:] for i in range(1000)]
    with pytest.raises(ValueError, match=r"a.pt\[\d+\] is a tensor of .* a view"):
        read_torch(save(torch, views, tmp_path / "a.pt"))


def test_small_views_and_tied_weights_are_read(torch, tmp_path):
    weight = torch.arange(400_000.0)
    views = {"small": torch.ones(1).expand(2, 3), "turned": torch.arange(6.0).reshape(2, 3).T}
    tied = [weight.view(400_000) for _ in range(20)]
    read = read_torch(save(torch, views | {"tied": tied}, tmp_path / "a.pt"))
    np.testing.assert_array_equal(read["small"], np.ones((2, 3)))
    np.testing.assert_array_equal(read["turned"], np.arange(6).reshape(2, 3).T)
    assert all(array is read["tied"][0] for array in read["tied"])


def rewritten(path, data):
    """Replace data.pkl in the archive, with correct checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)
    return path


BOMBS = {
    "deep list": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "more than 100 levels"),
    "deep tuple as a key": (b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.", "more than 100 levels"),
    "contains itself": (b"\x80\x02]q\x00h\x00a.", r"a.pt\[0\] is an object that contains itself"),
    "contains itself deeper": (
        b"\x80\x02]q\x00}X\x01\x00\x00\x00kh\x00sa.",
        r"\[0\]\['k'\] .* itself",
    ),
    "set of a range": (
        b"\x80\x02c__builtin__\nfrozenset\nc__builtin__\nxrange\nJ\xff\xff\xff\x7f\x85R\x85R.",
        "cannot be made: its items are a range",
    ),
    "bytes of a size": (b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "bytearray"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_rejects_bomb(torch, tmp_path, name):
    data, message = BOMBS[name]
    path = rewritten(save(torch, [], tmp_path / "a.pt"), data)
    with pytest.raises(ValueError, match=f"a.pt is refused: .*{message}"):
        read_torch(path)


def test_shared_list_is_read_once(torch, tmp_path):
    """Expanded, forty doublings would have 10¹² entries."""
    shared = [1]
    for _ in range(40):
        shared = [shared, shared]
    read = read_torch(save(torch, shared, tmp_path / "a.pt"))
    assert read[0] is read[1]


def test_rejects_highly_compressed_archive(torch, tmp_path):
    path = save(torch, {"w": torch.zeros(2_000_000)}, tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match="a.pt is refused: .* more than 1,0.* bytes"):
        read_torch(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_random_damage_raises_only_value_error(torch, tmp_path):
    """Changed bytes, cut files, and changed pickles with correct checksums."""
    content = {"w": torch.arange(50.0), "it": [thing for thing, _ in HARMLESS.values()]}
    draw, path, whole, outcomes = random.Random(5), tmp_path / "a.pt", [], collections.Counter()
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        whole.append(stream.getvalue())
    for i in range(600):
        data = bytearray(whole[i % 2])
        if i % 6 == 0:
            path.write_bytes(data)
            with zipfile.ZipFile(path) as archive:
                (name,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
                inner = bytearray(archive.read(name))
            at = draw.randrange(2, len(inner))
            inner[at : at + draw.randrange(3)] = draw.choice(
                [b"t", b"R", b"(", b"h\x01", b"u", b"}"]
            )
            rewritten(path, bytes(inner))
        else:
            if i % 3 == 1:
                del data[draw.randrange(len(data)) :]
            else:
                data[draw.randrange(len(data))] = draw.randrange(256)
            path.write_bytes(data)
        try:
            read_torch(path)
            outcomes["read"] += 1
        except ValueError as error:
            assert str(error).startswith(f"{path} is refused: ")
            outcomes["refused"] += 1
    assert outcomes["read"] > 10 and outcomes["refused"] > 300
