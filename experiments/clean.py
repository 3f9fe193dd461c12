"""Empties the cache of decoded data sets and compiled programs. No run and no result is touched."""

from experiments import flags as cli


def main() -> None:
    """Deletes all of it, and prints how much that was."""
    from prunejax.data import cache

    freed = cache.clean()
    print(f"{cache.cache_dir()}: {freed / 2**20:.1f} MiB freed")


if __name__ == "__main__":
    cli.run(main, __doc__, "python -m experiments.clean", ())
