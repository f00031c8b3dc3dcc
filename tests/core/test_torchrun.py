"""The command that starts training."""

import shlex

from sparsify_core.torchrun import as_text, options_to_fill_in, torchrun_command


def test_a_command_reads_as_the_shell_runs_it() -> None:
    command = torchrun_command("python", ["--config", "/a folder/c.json", "--attempt", "1"], num_processes=2)
    assert command[:6] == ["python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    text = as_text(command)
    assert shlex.split(text.replace("\\\n", " ")) == command
    assert text.splitlines()[2] == "  --nproc_per_node 2 -m sparsify_core \\"


def test_several_nodes_meet_at_a_host_and_one_by_itself() -> None:
    assert list(options_to_fill_in(1)) == ["--standalone"]
    options = options_to_fill_in(3)
    assert options[:2] == ["--nnodes", "3"]
    assert options[options.index("--rdzv-endpoint") + 1] == "HOST:29400"
