"""Networks shared by methods: frozen backbones, the Gaze-LLE decoder, a cache of features."""
