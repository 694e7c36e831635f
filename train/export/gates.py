"""What is asked of an exported network: how alike to torch it must be, by its precision."""

# smallest cosine between what torch and the exported network make of one item
COSINES = {"float32": 0.9999, "float16": 0.999, "bfloat16": 0.999, "int8": 0.99, "int8-trt": 0.99}
# largest difference of a class's probability: that of the likeliest class moves most where two are as likely
CLASSES = {"float32": 0.01, "float16": 0.05, "bfloat16": 0.1, "int8": 0.3, "int8-trt": 0.3}
LENGTH = 0.01  # largest difference of a unit embedding's length, which OpenVINO computes in bfloat16 when told to
FEWEST_ITEMS = 16  # fewer tell little, and are told of
NEIGHBOURS = 10  # nearest items that are compared
