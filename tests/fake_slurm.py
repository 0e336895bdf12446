"""Slurm's four commands as far as submitit calls them, for one machine: link or copy this file to
their names.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def sbatch(script):
    """Begin every task of the array, each in a session of its own."""
    number = str(len(list(STATE.glob("*.batch"))) + 1)
    (STATE / f"{number}.batch").write_text(Path(script).read_text())
    array = re.search(r"--array=0-(\d+)", Path(script).read_text())
    for task in range(int(array[1]) + 1) if array else [None]:
        name = number if task is None else f"{number}_{task}"
        own = {
            "SLURM_JOB_ID": f"{number}{task or ''}",
            "SLURM_NTASKS": "1",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NODEID": "0",
        }
        own |= (
            {} if task is None else {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task)}
        )
        own |= {
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_JOB_NAME": "stillrobust",
        }
        quiet = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        process = subprocess.Popen(
            ["bash", script], env={**os.environ, **own}, start_new_session=True, **quiet
        )
        (STATE / f"{name}.pid").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def srun(*words):
    """Run the command in this process, its output where the batch file says."""
    place = next(
        index
        for index, word in enumerate(words)
        if index and not word.startswith("-") and words[index - 1][:2] != "--"
    )
    array, task, job = (
        os.environ.get(f"SLURM_{name}", "") for name in ("ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_ID")
    )
    for option, descriptor in (("--output", 1), ("--error", 2)):
        path = words[words.index(option) + 1]
        for mark, value in (("%A", array), ("%a", task), ("%j", job), ("%t", "0")):
            path = path.replace(mark, value)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ |= {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}
    os.execvp(words[place], words[place:])


def sacct(*words):
    print("JobID|State|NodeList")
    for path in STATE.glob("*.pid"):
        print(f"{path.stem}|{'RUNNING' if alive(int(path.read_text())) else 'FAILED'}|localhost")


def scancel(*numbers):
    for path in STATE.glob("*.pid"):
        if path.stem.partition("_")[0] in numbers and alive(int(path.read_text())):
            os.killpg(int(path.read_text()), signal.SIGKILL)


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scancel": scancel}[Path(sys.argv[0]).name](
        *sys.argv[1:]
    )
