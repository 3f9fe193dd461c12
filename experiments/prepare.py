"""Downloads a TFDS data set and prepares it as array_record, once.

Needs the `prepare` extra; reading does not.
"""

from typing import Any

from absl import flags

from experiments import flags as cli
from experiments.places import require_writable
from prunejax.config import UserError
from prunejax.config.errors import in_one_line

FLAGS = flags.FLAGS


def main() -> None:
    """The data set that --dataset names, into --data_dir."""
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    try:
        builder = _builder()
        if not builder.data_path.exists():
            require_writable([builder.data_path])
        builder.download_and_prepare()
    except ImportError as error:
        raise UserError(
            f"preparing needs more packages ({error}): pip install -e '.[prepare]'"
        ) from None
    except (OSError, DownloadError, NonMatchingChecksumError) as error:
        raise UserError(f"{FLAGS.dataset} could not be prepared: {error}") from None
    print(f"{FLAGS.dataset} is prepared in {builder.data_path}")


def _builder() -> Any:  # noqa: ANN401
    """TFDS' builder of the data set that --dataset names.

    Raises:
        UserError: if there is none of that name, configuration or version.
    """
    import tensorflow_datasets as tfds

    record = tfds.core.FileFormat.ARRAY_RECORD
    try:
        return tfds.builder(FLAGS.dataset, data_dir=FLAGS.data_dir, file_format=record)
    except tfds.core.DatasetNotFoundError:
        raise UserError(f"--dataset={FLAGS.dataset}: TFDS knows no such data set") from None
    except (ImportError, OSError):
        raise
    except Exception as error:  # TFDS asserts that there is a version, and parses names
        raise UserError(
            f"--dataset={FLAGS.dataset}: TFDS has no such data set, configuration or version "
            f"({in_one_line(error)})"
        ) from None


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.prepare --dataset=cifar10 --data_dir=data"
    cli.run(main, __doc__, EXAMPLE, ("dataset", "data_dir"))
