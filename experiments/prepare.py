"""Downloads a TFDS data set and prepares it as array_record, once. Needs the `prepare` extra; reading does not."""

from absl import flags

from experiments import flags as cli

FLAGS = flags.FLAGS


def main() -> None:
    """The data set that --dataset names, into --data_dir."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(FLAGS.dataset, data_dir=FLAGS.data_dir, file_format=tfds.core.FileFormat.ARRAY_RECORD)
    builder.download_and_prepare()
    print(f"{FLAGS.dataset} is prepared in {builder.data_path}")


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.prepare --dataset=cifar10 --data_dir=data"
    cli.run(main, __doc__, EXAMPLE, ("dataset", "data_dir"))
