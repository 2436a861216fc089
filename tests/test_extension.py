"""A PDE, a model and a differentiator from outside the package: a Python file and a YAML file each, nothing else."""

import json
import os
import subprocess
import sys

PYTHON = {
    "heated_rod": """
from dataclasses import dataclass, field
import torch
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on

@dataclass(frozen=True)
class Rod(PDE):
    source: float = 1.0
    weights: dict = field(default_factory=dict)
    coordinates = ("x",)
    domain = Box((0.0,), (1.0,))

    def exact(self, d):
        return self.source / 2 * d.x * (1 - d.x)

    @on("interior", needs="u_xx")
    def heat(self, d):
        return d.u_xx + self.source

    @on("boundary", needs="u")
    def ends(self, d):
        return d.u
""",
    "cubic": """
import torch

class Cubic(torch.nn.Module):
    def __init__(self, dimension):
        super().__init__()
        self.coefficients = torch.nn.Parameter(torch.zeros(4, 1, dtype=torch.float64))

    def bank(self, x):
        return torch.cat([x**0, x, x**2, x**3], dim=1)

    def forward(self, x):
        return self.bank(x) @ self.coefficients
""",
    "one_by_one": """
from dataclasses import dataclass
import torch
from pde_train.differentiators.base import Differentiator

@dataclass(frozen=True)
class OneByOne(Differentiator):
    def partials(self, u, x, axes):
        found = {}
        for a in axes:
            f = u
            for i in a:
                f = (lambda g, i: lambda y: torch.stack(
                    [torch.func.grad(lambda z, j=j: g(z)[:, j].sum())(y)[:, i] for j in range(g(y).shape[1])], dim=1
                ))(f, i)
            found[a] = f(x)
        return found
""",
}

YAML = {
    "pde/rod": "_target_: heated_rod.Rod\nsource: 2.0\nweights: {}\n",
    "model/cubic": "defaults:\n  - override /method@_global_.method: least_squares\n_target_: cubic.Cubic\n",
    "differentiator/one_by_one": "_target_: one_by_one.OneByOne\n",
}


def test_one_python_file_and_one_yaml_file_each(tmp_path):
    for name, text in PYTHON.items():
        (tmp_path / f"{name}.py").write_text(text)
    for name, text in YAML.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / f"{name}.yaml").write_text(text)
    command = [sys.executable, "-m", "pde_train", "--config-dir", "mine", "pde=rod", "model=cubic"]
    command += ["differentiator=one_by_one", "tracking=none", "hydra.run.dir=run"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    modules = "trusted_modules=[heated_rod,cubic,one_by_one]"
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "name your own module on the command line by trusted_modules" in refused.stderr
    done = subprocess.run(
        [*command, modules], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert metrics["error_l2"] < 1e-14  # a cubic holds the exact parabola
