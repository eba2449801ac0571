"""`python -m vaearr`, which is also what torchrun starts: `torchrun --nproc-per-node 2 -m vaearr --
train …`.
"""

from vaearr.cli import main

if __name__ == "__main__":
    main()
