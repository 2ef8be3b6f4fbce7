"""Makes recurrent.npz: what PyTorch's LSTM and GRU compute with the weights of `tests/parity.py`.

pip install torch && python tests/references/make_recurrent.py
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1]))
from parity import REFERENCES, tensor  # noqa: E402

LENGTH, WIDTHS, LAYERS = 12, (6, 8), 2  # tokens; of the input and of the states


def main():
    found = {}
    for cell, kind in (("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)):
        network = kind(*WIDTHS, num_layers=LAYERS, batch_first=True)
        state = {
            name: torch.tensor(tensor(f"{cell}.{name}", list(weight.shape)))
            for name, weight in network.state_dict().items()
        }
        network.load_state_dict(state)
        x = torch.tensor(tensor("input", [2, LENGTH, WIDTHS[0]]))
        with torch.no_grad():
            found[cell] = network(x)[0].numpy()
    np.savez_compressed(REFERENCES / "recurrent.npz", **found)


if __name__ == "__main__":
    main()
