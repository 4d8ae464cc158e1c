"""The entry point of ``totesys``. The commands are in commands/."""


def main() -> None:
    """Run the command line of this process."""
    from totesys_assets.commands import main as totesys

    totesys(prog_name="totesys")


if __name__ == "__main__":
    main()
