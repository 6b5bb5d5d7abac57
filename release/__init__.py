"""What is given to users: `python -m release` installs the wheel in fresh environments, and runs `smoke` in each."""
