"""Checkpoint files: read without running anything that they hold, damage told in one line."""

import sys
import types
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vaearr.errors import DataError, NoInputError
from vaearr.foreign.files import named_tensors

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


class Trap:
    """Would show if it were unpickled."""

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


@pytest.mark.parametrize("form", ["zip", "old", "safetensors", "nested"])
def test_tensors_by_name(form, tmp_path):
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pt")
    if form == "safetensors":
        save_file(STATE, path)
    else:
        state = {"model": STATE, "epoch": 3, "names": ["a"]} if form == "nested" else STATE
        torch.save(state, path, _use_new_zipfile_serialization=form != "old")
    found = named_tensors(path)
    assert list(found) == [f"model.{name}" if form == "nested" else name for name in STATE]
    for a, b in zip(found.values(), STATE.values(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("old", [False, True])
def test_objects_are_not_unpickled(old, tmp_path):
    torch.save({"state_dict": STATE, "trap": Trap()}, tmp_path / "trap.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(DataError, match=r"pickled setattr, not only tensors, and is not opened"):
        named_tensors(tmp_path / "trap.pt")
    assert not hasattr(Trap, "sprung")


def test_whole_modules_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(DataError, match=r"pickled torch\.nn\.modules\.linear\.Linear.*save its state_dict\(\) alone"):
        named_tensors(tmp_path / "module.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "compiled.pt")
    with pytest.raises(DataError, match="compiled"):
        named_tensors(tmp_path / "compiled.pt")


def test_what_training_frameworks_leave_beside_the_weights_is_passed_over(tmp_path, monkeypatch):
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for i in range(1, 4):
        part = ".".join(name.split(".")[:i])
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    left = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules[name].ModelCheckpoint = left
    torch.save({"state_dict": STATE, "callbacks": {left: {"best": left()}}}, tmp_path / "lightning.ckpt")
    before = set(torch.serialization.get_safe_globals())
    monkeypatch.undo()  # the framework is not there when the file is read
    assert list(named_tensors(tmp_path / "lightning.ckpt")) == [f"state_dict.{name}" for name in STATE]
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("kind", ["truncated", "old-truncated", "text", "empty", "safetensors", "renamed"])
def test_damage_is_one_clear_line(kind, tmp_path):
    path = tmp_path / ("x.safetensors" if kind in ("safetensors", "renamed") else "x.ckpt")
    torch.save(STATE, tmp_path / "whole.pt", _use_new_zipfile_serialization=kind != "old-truncated")
    save_file(STATE, tmp_path / "whole.safetensors")
    whole = (tmp_path / ("whole.safetensors" if kind == "safetensors" else "whole.pt")).read_bytes()
    path.write_bytes(
        {"text": b"version https://example.org/pointer\n", "empty": b"", "renamed": whole}.get(kind, whole[:-30])
    )
    with pytest.raises(DataError, match=r"^\S+x\.(ckpt|safetensors) is not a whole [^\n]*; [^\n]*\.$"):
        named_tensors(path)


def test_files_without_tensors_and_paths_without_files(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    torch.save(torch.ones(3), tmp_path / "bare.pt")
    for name in ("none.pt", "bare.pt"):
        with pytest.raises(DataError, match="holds no named tensors"):
            named_tensors(tmp_path / name)
    with pytest.raises(NoInputError, match=r"gone\.pt is not there; give the path"):
        named_tensors(tmp_path / "gone.pt")
    with pytest.raises(NoInputError, match="is a folder"):
        named_tensors(tmp_path)
