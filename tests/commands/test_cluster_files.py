"""The files of docs/cluster for Slurm and Kubernetes, as far as one machine can try them."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from lstm_optax.commands.flags import flags_of
from lstm_optax.commands.train import Train

FOLDER = Path(__file__).parents[2] / "docs" / "cluster"
SBATCH = FOLDER / "train.sbatch"


def flags_in(script):
    """Return the flags after `lstm-optax train`, and those of the array `flags`."""
    arguments = re.findall(r"lstm-optax train(.*?)(?:\|\||$)", script.replace("\\\n", ""), re.M)
    arguments += re.findall(r"flags=\((.*?)\)", script)
    return set(re.findall(r"--([a-z-]+)", " ".join(arguments)))


@pytest.fixture
def submit(tmp_path):
    """Return a function that runs the batch script with stand-ins for Slurm's programs."""

    def run(status, restarts=0):
        for name, code in (("srun", status), ("scontrol", 0)):
            path = tmp_path / name
            path.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\nexit {code}\n')
            path.chmod(0o755)
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_NAME": "lstm",
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        command = ["bash", str(SBATCH), "--text", "a b"]
        code = subprocess.run(command, env=environment, timeout=20).returncode
        calls = (tmp_path / "calls").read_text().splitlines()
        (tmp_path / "calls").unlink()
        return code, calls

    return run


@pytest.mark.parametrize(
    "status, restarts, again",
    [(0, 0, False), (2, 0, False), (130, 3, True), (137, 0, True), (134, 20, False)],
)
def test_batch_script_requeues_failed_jobs(submit, status, restarts, again):
    code, calls = submit(status, restarts)
    assert code == status
    assert calls[1:] == (["scontrol requeue 7"] if again else [])


def test_batch_script_resumes_saved_run(submit, tmp_path):
    _, calls = submit(0)
    assert calls[0].endswith(f"--run {tmp_path}/runs/lstm-7 --overwrite --text a b")
    checkpoints = tmp_path / "runs" / "lstm-7" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "50.sha256").touch()
    assert submit(0)[1][0].endswith("--resume --text a b")


def test_kubernetes_file_agrees_with_itself():
    service, job = yaml.safe_load_all((FOLDER / "job.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    (script,) = container["args"]
    assert f"--coordinator {name}-0.{pod['subdomain']}:" in script
    assert f"--processes {spec['completions']} " in script
    assert spec["completions"] == spec["parallelism"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    subprocess.run(["bash", "-n", "-c", script], check=True, timeout=20)


@pytest.mark.parametrize("name", ["train.sbatch", "job.yaml"])
def test_cluster_files_use_known_flags(name):
    found = flags_in((FOLDER / name).read_text())
    assert {"distributed", "run", "resume", "overwrite"} <= found
    assert found <= set(flags_of(Train))
