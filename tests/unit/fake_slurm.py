"""SLURM's commands as far as Snakemake's executor calls them, around jobs that run on this machine."""

from pathlib import Path

SBATCH = r"""#!/bin/bash
for word in "$@"; do
    case "$word" in --wrap=*) wrap="${word#--wrap=}" ;; esac
    [ "$before" = --output ] && output="$word"
    [ "$before" = -D ] && cd "$word"
    before="$word"
done
number=$(( $(ls "$FAKE_SLURM" | grep -c call) + 1 ))
printf '%s\n' "$@" > "$FAKE_SLURM/$number.call"
export SLURM_JOB_ID=$number wrap
setsid bash -c 'bash -c "$wrap" && state=COMPLETED || state=FAILED
    echo $state > "$FAKE_SLURM/$SLURM_JOB_ID.state"' > "${output//%j/$number}" 2>&1 &
echo $number
"""
SACCT = r"""#!/bin/bash
case "$*" in *Account*) echo none; exit ;; esac
for call in "$FAKE_SLURM"/*.call; do
    number=$(basename "$call" .call)
    echo "$number|$(cat "$FAKE_SLURM/$number.state" 2> /dev/null || echo RUNNING)"
done
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do shift; done
exec "$@"
"""
COMMANDS = {"sbatch": SBATCH, "sacct": SACCT, "srun": SRUN, "squeue": SACCT, "scancel": "#!/bin/bash\n"}
COMMANDS |= {"sinfo": "#!/bin/bash\necho 'all*'\n", "scontrol": "#!/bin/bash\necho 'MinJobAge = 300 sec'\n"}


def make_queue(folder: Path) -> dict[str, Path]:
    """The folder of commands, to be put on PATH, and the folder of calls, which they find in FAKE_SLURM."""
    commands, calls = folder / "commands", folder / "calls"
    for place in (commands, calls):
        place.mkdir(parents=True)
    for name, text in COMMANDS.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return {"commands": commands, "calls": calls}
