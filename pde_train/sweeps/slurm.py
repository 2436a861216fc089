"""Cells as jobs of a SLURM array: queued once, found again by every later launch, waited for."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher import submitit_launcher
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from omegaconf import DictConfig

from pde_train.errors import UsageError
from pde_train.overrides import Overrides
from pde_train.run_folder import Status
from pde_train.sweeps.compose import quoted
from pde_train.sweeps.grid import settle
from pde_train.training.tasks import first_task

JOB_FILE = "slurm_job"
"""In the folder of a cell: the id of the job that has it, such as 17_3."""

TOOLS = ("sbatch", "srun", "squeue", "scontrol")

OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"} | {
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
"""What squeue says of a job that will not run (again)."""

MOST_SECONDS = 60.0
"""Between two looks at the queue; at first they are more frequent."""

log = logging.getLogger(__name__)


class SlurmLauncher(submitit_launcher.SlurmLauncher):  # type: ignore[misc]  # Hydra's plugins have no types
    """Hydra's submitit launcher, but for how it waits: on SLURM's queue, and on jobs of earlier launches as well.

    It asks squeue alone, hence needs no accounting, and returns when every job is over, however those ended: what the
    cells came to lies in their folders. A cell whose job ended without a word gets a result that says so.
    """

    knows_jobs = True
    """The sweeper leaves it to this launcher which cells have a job, and launches each once: SLURM itself queues jobs
    again, and what was cancelled stays so."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise UsageError(
                f"{', '.join(missing)} of SLURM is not on the PATH: expected a machine of a cluster, log in to one or "
                "choose hydra/launcher=basic"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> JobReturn:
        """What a job does. Preempted with time to save, it ends by itself, and SLURM would not queue it again."""
        try:
            return self._task(*args, **kwargs)
        except SystemExit:
            if preempted(os.environ["SLURM_JOB_ID"]):
                signal.raise_signal(signal.SIGUSR2)  # submitit queues the job again
            raise

    def _task(self, words: list[str], *others: Any, **named: Any) -> JobReturn:
        """What a task of a job does: the first one trains, the others share its points."""
        import submitit

        here = submitit.JobEnvironment()
        if here.num_tasks == 1:
            return self._train(words, *others, **named)
        meetings = here.paths.folder / f"tasks-{os.environ.get('SLURM_RESTART_COUNT', 0)}"
        if here.global_rank == 0:
            with first_task(meetings):
                return self._train([*words, f"sweep.tasks={quoted(meetings)}"], *others, **named)
        from pde_train.training.sharded_steps import serve
        from pde_train.training.workers import work_as_task

        work_as_task(meetings, here.global_rank, here.local_rank, serve)
        return JobReturn()

    def _train(self, *args: Any, **named: Any) -> JobReturn:
        returned: JobReturn = super().__call__(*args, **named)
        return returned

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        cells = {self._folder(words): list(words) for words in job_overrides}
        states = queue()
        if states is None:
            raise UsageError("squeue does not answer: expected SLURM's controller to be up, try again later")
        old = {folder for folder in cells if not over(states, job_of(folder))}
        new = [folder for folder in cells if folder not in old]
        for folder in new:
            self._check_tasks(cells[folder])
        if new:
            ids = self._submit([cells[folder] for folder in new], initial_job_idx)
            for folder, job in zip(new, ids, strict=True):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / JOB_FILE).write_text(job)
        log.info("%d jobs queued, %d were queued before", len(new), len(old))
        self._wait(cells)
        return []

    def _folder(self, words: Sequence[str]) -> Path:
        return Path(self.config.hydra.sweep.dir).absolute() / str(Overrides.parse(words).value_of("hydra.sweep.subdir"))

    def _check_tasks(self, words: list[str]) -> None:
        """Refuse jobs of several tasks that are not as many as the processes that share the points of a cell."""
        nodes, per_node = self.params["nodes"], self.params["tasks_per_node"]
        if nodes * per_node == 1:
            return
        said = f"hydra.launcher.nodes={nodes} with tasks_per_node={per_node} makes {nodes * per_node} tasks of a job"
        if Overrides.parse(words).value_of("sweep.stack") is not None:
            raise UsageError(f"{said}, and a stack trains in one process: expected one task")
        at = self.hydra_context.config_loader.load_sweep_config(self.config, words).accelerator
        if at.get("processes", 1) != nodes * per_node:
            raise UsageError(
                f"{said}, which share the points of a cell, and accelerator.processes={at.get('processes', 1)}: "
                f"expected as many, choose accelerator=ddp accelerator.processes={nodes * per_node} or one task"
            )

    def _submit(self, jobs: Sequence[list[str]], first: int) -> list[str]:
        """Queue one array; the ids of its jobs."""
        import submitit

        general = {field.name for field in dataclasses.fields(BaseQueueConf)}
        given = {k: v for k, v in self.params.items() if k not in ("submitit_folder", "max_num_timeout")}
        values = {k if k in general else f"slurm_{k}": v for k, v in given.items()}
        values["slurm_srun_args"] = ["--kill-on-bad-exit=1"]  # no task waits for one that has died
        values["slurm_setup"] = [*(self.params.get("setup") or []), *exports(os.environ)]
        executor = submitit.AutoExecutor(
            self.params["submitit_folder"], cluster="slurm", slurm_max_num_timeout=self.params["max_num_timeout"]
        )
        executor.update_parameters(**values)
        numbers = range(first, first + len(jobs))
        columns = jobs, ["hydra.sweep.dir"] * len(jobs), numbers, map(str, numbers), [Singleton.get_state()] * len(jobs)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
                queued = executor.map_array(self, *columns)
        except submitit.core.utils.FailedJobError as error:
            reason = str(error).replace("sbatch: error: ", "").replace("\n", "; ")
            raise UsageError(f"sbatch refused the jobs ({reason}): correct hydra.launcher, see --cfg hydra") from error
        return [job.job_id for job in queued]

    def _wait(self, cells: Mapping[Path, Sequence[str]]) -> None:
        """Until no job of these cells is queued or runs; interrupted, it says which those are."""
        began, waiting, said = time.monotonic(), {folder: job_of(folder) for folder in cells}, ""
        try:
            while waiting:
                states = queue()
                if states is None:
                    states = dict.fromkeys(waiting.values(), "unknown, squeue does not answer")
                for folder in [f for f, job in waiting.items() if over(states, job)]:
                    job = waiting.pop(folder)
                    self._settle(folder, cells[folder], job, states.get(job, "gone from the queue, as after scancel"))
                counts = Counter(states[job] for job in waiting.values())
                if said != (said := ", ".join(f"{count} {state}" for state, count in counts.items())):
                    log.info("jobs: %s", said or "all over")
                if waiting:
                    time.sleep(min(MOST_SECONDS, 1 + (time.monotonic() - began) / 20))
        except BaseException:  # Ctrl-C, too: the jobs go on, which is said
            arrays = sorted({job.partition("_")[0] for job in waiting.values()})
            print(
                f"{len(waiting)} jobs stay with SLURM and go on; to end them too: scancel {' '.join(arrays)}",
                file=sys.stderr,
            )
            raise

    def _settle(self, folder: Path, words: Sequence[str], job: str, state: str) -> None:
        """A result for a cell whose job is over and left none."""
        folder.chmod(folder.stat().st_mode)  # makes a network file system look again
        logs = Path(str(self.params["submitit_folder"]).replace("%j", job)).absolute()
        error = f"its SLURM job {job} ended ({state}) and left no word; the same command tries again; logs: {logs}"
        settle(folder, words, error, Status.INTERRUPTED)


def queue() -> dict[str, str] | None:
    """What SLURM says of this user's jobs, also of those that ended lately.

    Returns:
        The state of each job by its id and, of a job that waits, why: ``PENDING (Resources)``. None
        where SLURM does not answer.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %T (%r)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    return None if done.returncode else {job: f"{s} {why}" if s == "PENDING" else s for job, s, why in lines}


def over(states: Mapping[str, str], job: str) -> bool:
    """Whether a job will not run (again)."""
    return states.get(job, "COMPLETED") in OVER


def preempted(job: str) -> bool:
    """Whether SLURM is ending the running job in favour of another one."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, timeout=60).stdout
    return "JobState=RUNNING" in shown and "PreemptTime=" in shown and "PreemptTime=None" not in shown


def job_of(folder: Path) -> str:
    """The id of the job that was queued last for a cell, empty where there is none."""
    file = folder / JOB_FILE
    return file.read_text() if file.exists() else ""


def exports(environment: Mapping[str, str]) -> list[str]:
    """Lines of a shell script that set what a job must know, also where sbatch exports nothing."""
    names = [name for name in ("HYDRA_FULL_ERROR", "PYTHONPATH") if name in environment]
    return ["export SLURM_EXPORT_ENV=ALL", *(f"export {name}={shlex.quote(environment[name])}" for name in names)]
