from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.sdist import sdist


class Source(sdist):
    """A source distribution with what this file reads."""

    def make_distribution(self):
        self.filelist.append("requirements.txt")
        super().make_distribution()


setup(
    name="lmlite",
    version="0.1.0",
    description="In-context learning or lightweight tuning: compare them on your task, in JAX",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["lmlite", "lmlite.*", "configs", "experiments*"]),
    install_requires=Path(__file__).with_name("requirements.txt").read_text().splitlines(),
    cmdclass={"sdist": Source},
    entry_points={"lm_eval.models": ["lmlite = lmlite.harness.model:LmliteLM"]},
    extras_require={
        "test": [
            "ipykernel",
            "lm-eval>=0.4.9",
            "nbclient",
            "nbformat",
            "pytest>=8",
            "pytest-xdist>=3",
            "ruff>=0.12",
            "scikit-learn>=1.5",
        ],
        "peers": ["lm-eval", "peft", "torch", "transformers"],  # benchmarks and parity tests
        "harness": ["lm-eval>=0.4.9"],
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
    },
)
