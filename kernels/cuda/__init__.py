"""The kernels on a CUDA device. `kernels.mahalanobis_map` comes here for arrays that lie on one.

    from kernels.cuda.head import MapHead  # distances to maps and scores, on the device

Nothing is loaded here: the driver is opened, and kernels are compiled, when a device is first used.
"""
