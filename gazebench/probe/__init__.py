"""The prober: which regions of a picture are likely to attract somebody, by scene context alone; splits made of it."""
