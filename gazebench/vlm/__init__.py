"""One interface to vision-language models behind servers and in this process, and a store of their answers."""
