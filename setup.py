"""The packages of the wheel: flows/ is installed as vaearr.flows."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["vaearr*"]), "vaearr.flows"],
    package_dir={"vaearr.flows": "flows"},
)
