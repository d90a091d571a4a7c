"""`python -m kasmina_env`, which is the command `kasmina`."""

from kasmina_env.cli.main import main

if __name__ == "__main__":
    main()
