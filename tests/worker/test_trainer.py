"""What the training processes are given."""

from pathlib import Path

from pydantic import SecretStr

from worker.trainer import trainer_config, trainer_environment


def environment(outer: dict[str, str], devices: list[int]) -> dict[str, str]:
    return trainer_environment(outer, run_id="r", fence=3, devices=devices, error_file=Path("/e"))


def test_training_sees_no_credentials_of_database_and_broker() -> None:
    outer = {
        "PATH": "/bin",
        "DATABASE_URL": "secret",
        "REDIS_URL": "secret",
        "SPARSEBOARD_DATABASE_URL": "secret",
        "SPARSEBOARD_HF_TOKEN": "secret",
        "PGPASSWORD": "secret",
        "HF_HOME": "/hf",
        "NCCL_DEBUG": "INFO",
    }
    given = environment(outer, [])
    assert "secret" not in given.values()
    assert (given["PATH"], given["HF_HOME"], given["NCCL_DEBUG"]) == ("/bin", "/hf", "INFO")
    assert (given["SPARSEBOARD_RUN_ID"], given["SPARSEBOARD_FENCE"]) == ("r", "3")


def test_only_leased_gpus_are_visible() -> None:
    assert environment({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [1, 3])["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert environment({"CUDA_VISIBLE_DEVICES": "0,1"}, [])["CUDA_VISIBLE_DEVICES"] == ""


def test_the_hugging_face_token_travels_in_the_environment() -> None:
    given = trainer_environment(
        {}, run_id="r", fence=1, devices=[], error_file=Path("/e"), hf_token=SecretStr("hf_token")
    )
    assert given["HF_TOKEN"] == "hf_token"


def test_a_cache_of_activations_lies_in_the_data_folder() -> None:
    config = {"model": "m", "cache_activations": "smol"}
    given = trainer_config(config, Path("/data/activations"))
    assert given == {"model": "m", "cache_activations": "/data/activations/smol", "resume": True}
    assert trainer_config({"cache_activations": None}, Path("/data"))["cache_activations"] is None
