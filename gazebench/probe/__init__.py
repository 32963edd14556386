"""The prober: which regions of an image are likely to attract somebody, by scene context alone; splits made of it."""
