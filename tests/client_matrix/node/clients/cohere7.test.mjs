import * as cohere from "cohere-ai";
import { cohereChecks } from "./cohere.mjs";

cohereChecks("cohere-ai", cohere);
