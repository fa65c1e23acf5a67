"""MODEL as the command line spells it."""

import random
import sys
from contextlib import contextmanager

import numpy
import pytest
import torch
from torch import nn

from mge_gpu import model_spec
from mge_gpu.errors import MGEError
from mge_gpu.model_spec import ModelLoadError, ModelSpecError, load_model, num_outputs, parse_shape


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with a module `nets_of_mine`."""
    (tmp_path / "nets_of_mine.py").write_text(
        "import torch\n"
        "def small(): return torch.nn.Linear(3, 2)\n"
        "class Zoo:\n"
        "    ready = torch.nn.Linear(1, 1)\n"
        "number = 3\n"
        "def broken(): raise RuntimeError('first line\\nsecond line')\n"
        "def needs(width): return torch.nn.Linear(width, 2)\n"
        "def text(): return 'a model, honestly'\n"
    )
    (tmp_path / "needs_more.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "stumbles.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("nets_of_mine", "needs_more", "stumbles"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("text, shape", [("3x32x32", (3, 32, 32)), ("7", (7,)), ("1X8", (1, 8))])
def test_parse_shape(text, shape):
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "x", "3x", "3x-2", "0x3", "3x3.5", "3,32,32", "axb"])
def test_parse_shape_refuses(text):
    with pytest.raises(ModelSpecError, match="expected sizes joined by x"):
        parse_shape(text)


@pytest.mark.parametrize("spec", ["", "resnet50", ":", "torchvision:", ":resnet20", "model.pt"])
def test_unknown_form_names_the_forms(spec):
    with pytest.raises(ModelSpecError, match="expected torchvision:NAME, mge:NAME"):
        load_model(spec)


def test_factory_in_the_working_directory(project):
    model = load_model("nets_of_mine:small")
    assert isinstance(model, nn.Linear) and model.weight.shape == (2, 3)
    assert str(project) not in sys.path


def test_a_ready_model_behind_a_dotted_name(project):
    assert load_model("nets_of_mine:Zoo.ready").weight.shape == (1, 1)


@pytest.mark.parametrize(
    "spec, error, message",
    [
        ("nets_of_mine:gone", ModelSpecError, "module 'nets_of_mine' has no 'gone'"),
        ("not_a_module_here:net", ModelSpecError, "no module 'not_a_module_here'"),
        ("torch.nothing:net", ModelSpecError, "no module 'torch.nothing'"),
        ("nets_of_mine:number", ModelSpecError, "'number' is of type int"),
        ("nets_of_mine:text", ModelSpecError, "returned str"),
        ("nets_of_mine:broken", ModelLoadError, "RuntimeError: first line$"),
        ("nets_of_mine:needs", ModelLoadError, "missing 1 required positional argument"),
        ("needs_more:net", ModelLoadError, "a_module_that_is_not_there"),
        ("stumbles:net", ModelLoadError, "ZeroDivisionError"),
    ],
)
def test_what_can_be_wrong_with_a_factory(project, spec, error, message):
    with pytest.raises(error, match=message) as caught:
        load_model(spec)
    assert isinstance(caught.value, MGEError)
    assert "\n" not in str(caught.value)
    assert str(project) not in sys.path


def test_torchvision_model():
    pytest.importorskip("torchvision")
    model = load_model("torchvision:squeezenet1_1")
    assert type(model).__name__ == "SqueezeNet"


def test_torchvision_unknown_name_suggests():
    pytest.importorskip("torchvision")
    with pytest.raises(ModelSpecError, match="did you mean .*resnet50"):
        load_model("torchvision:resnet51")


def test_torchvision_backbones_are_not_downloaded(monkeypatch):
    pytest.importorskip("torchvision")

    def no_network(*_args, **_kwargs):
        raise AssertionError("tried to download weights")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    model = load_model("torchvision:lraspp_mobilenet_v3_large")
    assert type(model).__name__ == "LRASPP"


def test_the_seed_decides_the_weights_and_nobody_elses_numbers(project):
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
    first, again, other = (load_model("nets_of_mine:small", s) for s in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == numpy.random.get_state()[1]).all()


def test_gpus_stay_as_they_are_until_a_model_is_made_on_one(project, monkeypatch):
    """To read the state of a GPU's generator would start it: each GPU of a server, for work on the CPU."""
    started, begun = [], []

    @contextmanager
    def recorded(seed, devices):
        begun.append((seed, list(devices)))
        yield

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: bool(started))
    monkeypatch.setattr(model_spec, "seeded", recorded)
    load_model("nets_of_mine:small", 5)
    assert begun == [(5, []), (5, [])]
    monkeypatch.setattr(sys.modules["nets_of_mine"], "small", lambda: started.append(1) or nn.Linear(1, 1))
    load_model("nets_of_mine:small", 6)
    assert len(started) == 2 and begun[2:] == [(6, []), (6, []), (6, [0, 1])]
    load_model("nets_of_mine:small", 7)
    assert len(started) == 3 and begun[5:] == [(7, [0, 1]), (7, [0, 1])]


class Noisy(nn.Module):
    """Draws numbers in evaluation mode, too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, x):
        return self.layer(x + torch.rand_like(x) * random.random() * numpy.random.rand())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_outputs_are_counted_in_the_models_precision_and_leave_no_trace(dtype):
    model = Noisy().to(dtype).train()
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
    assert num_outputs(model, (3,)) == 5
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert (before[2] == numpy.random.get_state()[1]).all()
    assert model.training and model.layer.training
    with pytest.raises(ModelLoadError, match="cannot take an input of 4"):
        num_outputs(model, (4,))
    assert model.training and before[1] == random.getstate()


def test_saved_program(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(model, (torch.zeros(1, 4),)), path)
    loaded = load_model(str(path))
    x = torch.ones(1, 4)
    assert torch.equal(loaded(x), model(x))


def test_saved_program_missing_or_broken(tmp_path):
    with pytest.raises(ModelSpecError, match="no such file"):
        load_model(str(tmp_path / "gone.pt2"))
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"PK\x03\x04 not a program")
    with pytest.raises(ModelLoadError, match=r"torch\.export\.save") as caught:
        load_model(str(broken))
    assert "\n" not in str(caught.value)
