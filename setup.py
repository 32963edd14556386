"""Maps the top-level folders methods/, datasets/ and splits/ into the gazebench package.

They carry no ``__init__.py`` of their own: a top-level regular package called ``datasets`` would shadow the
Hugging Face one wherever this folder is on ``sys.path``.
"""

from setuptools import find_namespace_packages, setup

MAPPED = {f"gazebench.{folder}": folder for folder in ("methods", "datasets", "splits")}
packages = find_namespace_packages(include=["gazebench", "gazebench.*"])
for package, folder in MAPPED.items():
    packages += [package, *(f"{package}.{sub}" for sub in find_namespace_packages(folder))]
MAPPED["gazebench.leaderboards.published"] = "leaderboards/published"
packages.append("gazebench.leaderboards.published")

setup(
    packages=sorted(set(packages)),
    package_dir=MAPPED,
    package_data={
        "gazebench": [
            "**/*.pt",
            "**/*.json",
            "**/*.yaml",
            "**/*.tmpl",
            "py.typed",
            "report/board/assets/**/*",
            "report/board/templates/*",
        ],
        "gazebench.methods": ["**/*.pt", "**/*.yaml"],
        "gazebench.datasets": ["**/*.pt", "**/*.yaml"],
        "gazebench.splits": ["**/*"],
        "gazebench.leaderboards.published": ["*.yaml"],
    },
)
