"""Wrong words in a configuration: each is refused with one sentence before anything is built."""

import pytest
from fixtures import Compose

from pde_train.errors import UsageError
from pde_train.experiment import build

FINITE_DIFFERENCE = "differentiator=finite_difference"
NETWORK = "model=two_layer"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        # keys
        (["+precision=float32"], "precision is no key .*, did you mean accelerator.precision?"),
        (["+callbacks.x=1"], "callbacks is no key of the configuration: expected one of"),
        (["+trainer.y=1"], "trainer is no key of the configuration"),
        (["+sweep.speed=1"], "sweep.speed is no key of the configuration"),
        (["+accelerator.devices=1"], "accelerator.devices is no key"),
        (["+pde.velocity=1"], "pde.velocity is no field of .*Poisson1D: expected one of conditions, learn, data, fr"),
        (["+pde.frequncy=2"], "did you mean frequency"),
        (["+audit.factors=2"], "audit.factors is no field of .*Audit.*did you mean factor"),
        (["optimizer._target_=torch.optim.LBFGS", NETWORK], "optimizer.betas is no field of torch.optim.LBFGS"),
        (["+pde._args_=[1]"], "pde._args_ is not used here"),
        (["optimizer._partial_=abc", NETWORK], "optimizer._partial_=abc cannot be used: expected true"),
        (["+pde._partial_=true"], "pde._partial_=true cannot be used: expected none"),
        (["~seed"], "seed is missing: expected the key seed, remove ~seed"),
        (["~model"], "model is missing"),
        (["~entropy"], "entropy is missing"),
        (["~audit"], "audit is missing"),
        (["~pde._target_"], "pde has no _target_: expected the class that it builds"),
        (["~sweep.retry"], "sweep.retry is missing"),
        # groups
        (["audit=0"], "audit=0 is no audit: expected null for none, or audit.factor"),
        (["trusted_modules=rod"], "trusted_modules=rod is no list"),
        (["trusted_modules=[1]"], "trusted_modules.0=1 does not fit: expected a valid string"),
        (["sweep=3"], "sweep=3 has no keys"),
        # types
        (["seed=true"], "seed=true is no seed: expected an integer >= 0"),
        (["seed=-1"], "seed=-1 is no seed"),
        (["seed=0.5"], "seed=0.5 is no seed"),
        (["model.seed=[]"], "model.seed=.. is no seed"),
        (["model.seed=null"], "model.seed=null is no seed"),
        (["sampler.seed=null"], "sampler.seed=null is no seed"),
        (["sampler.seed=nan"], "sampler.seed=nan is no finite number"),
        (["resume=maybe"], "resume=maybe does not fit: expected a valid boolean"),
        (["sweep.stale=perhaps"], "sweep.stale=perhaps does not fit: expected 'keep' or 'rerun'"),
        (["sampler.interior=true"], "sampler.interior=true does not fit: expected a valid integer or a list"),
        (["sampler.interior=null"], "sampler.interior=null does not fit"),
        (["sampler.resample_every=0.5"], "sampler.resample_every=0.5 does not fit: expected a valid integer"),
        (["model.features=many"], "model.features=many does not fit: expected a valid integer"),
        (["model.features=1e2"], "model.features=100.0 does not fit: expected a valid integer"),
        (["model=mlp", "model.hidden=64"], "model.hidden=64 does not fit: expected"),
        (["model=mlp", "model.hidden=[64,a]"], "model.hidden.1=a does not fit: expected a valid integer"),
        (["pde.frequency=high"], "pde.frequency=high does not fit: expected a valid number"),
        (["pde.frequency=true"], "pde.frequency=true does not fit"),
        (["pde.weights=null"], "pde.weights=null does not fit"),
        (["pde.weights.value=heavy"], "pde.weights.value=heavy does not fit: expected a valid number"),
        (["entropy.relative=abc"], "entropy.relative=abc does not fit: expected a valid boolean"),
        (["entropy.thresholds=1e-8"], "entropy.thresholds=1e-08 does not fit"),
        (["diagnostics.when=first"], "diagnostics.when=first does not fit"),
        (["diagnostics.max_dense=nan"], "diagnostics.max_dense=nan is no finite number"),
        (["optimizer.lr=abc", NETWORK], "optimizer.lr=abc does not fit: expected a valid number"),
        (["optimizer.eps=inf", NETWORK], "optimizer.eps=inf is no finite number"),
        (["optimizer.betas=[0.9]", NETWORK], "optimizer.betas=.* does not fit"),
        (["optimizer.betas=0.9", NETWORK], "optimizer.betas=0.9 does not fit: expected a list"),
        (["optimizer=adam_then_lbfgs", "optimizer.switch=nan", NETWORK], "optimizer.switch=nan is no finite number"),
        ([FINITE_DIFFERENCE, "differentiator.step=null"], "differentiator.step=null does not fit"),
        (["accelerator.precision=float16"], "accelerator.precision=float16 does not fit: expected 'float64' or 'fl"),
        (["accelerator.accelerator=tpu"], "accelerator.accelerator=tpu does not fit: expected 'cpu' or 'gpu'"),
        (["accelerator.threads=0"], "accelerator.threads=0 does not fit: expected greater than 0"),
        (["accelerator.threads=two"], "accelerator.threads=two does not fit: expected a valid integer"),
        (["model.features=1" + "0" * 30], "is too large: expected an integer below"),
        # ranges, which the constructors and the composition root refuse
        (["accelerator.threads=100000"], "accelerator.threads=100000 is more than this machine has"),
        (["entropy.thresholds=[2]"], "expected numbers >= 0, and < 1 where they are relative"),
        (["entropy.thresholds=[inf]"], "entropy.thresholds.0=inf is no finite number"),
        (["diagnostics.when=[77]", NETWORK, "method.steps=50"], "diagnostics.when has the step 77, and the run has 50"),
        (["diagnostics.when=[77]"], "has the step 77, and the run has 0 steps"),
        (["diagnostics.when=[true]"], "diagnostics.when.0=true does not fit"),
        (["diagnostics.max_dense=0"], "diagnostics.max_dense=0 is no number of entries"),
        ([FINITE_DIFFERENCE, "differentiator.step=1e300"], "at a distance of 1e.300 along x, and the domain has a"),
        ([FINITE_DIFFERENCE, "differentiator.step=0.6", "differentiator.accuracy=8"], "at a distance of 2.4 along x"),
        (["differentiator=hybrid", "differentiator.step=5"], "at a distance of 5 along x, .* has a length of 2 there"),
        (["differentiator=complex_step", "differentiator.radius=1e12"], "at a distance of 1e.12"),
        (["model.weight_range=0"], "model.weight_range=0 has no room"),
        (["model.features=10000000000000"], "model.features asks for .* numbers, which take about"),
        (["sampler.interior=10000000000"], "sampler asks for 1.0e.10 numbers, which take about 1280 GB"),
    ],
)
def test_a_wrong_word_is_refused_with_one_sentence(compose: Compose, overrides: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as refused:
        build(compose(*overrides))
    assert len(str(refused.value).splitlines()) == 1
