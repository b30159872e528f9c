"""A fake client for Kaggle's API that needs no network."""

import types
import zipfile


class Client:
    """Returns zip files and accepts submissions."""

    def __init__(self, files=None, answer="Successfully submitted", error=None):
        self.files, self.answer, self.error = files or {}, answer, error
        self.calls = []

    def competition_download_file(self, competition, file_name, path, force, quiet):
        self.calls.append((competition, file_name, force))
        if self.error:
            raise self.error
        with zipfile.ZipFile(f"{path}/{file_name}", "w") as archive:
            for name, content in self.files.items():
                archive.writestr(name, content)

    def dataset_download_files(self, dataset, path, force, quiet, unzip):
        self.competition_download_file(dataset, f"{dataset.split('/')[1]}.zip", path, force, quiet)

    def competition_submit(self, file_name, message, competition):
        self.calls.append((file_name, message, competition))
        if self.error:
            raise self.error
        return types.SimpleNamespace(message=self.answer)
