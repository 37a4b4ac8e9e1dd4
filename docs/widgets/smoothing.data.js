courseData("smoothing", {"n": 10, "eps": 0.1, "gap": 6, "most": 0.3, "widest": 10})
