//! What Envoy's API says about its own messages and fields, in options of its descriptors.

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, OneofDescriptor,
};

use crate::pb::validate::FieldRules;

/// The options that matter here, by their descriptors.
pub(super) struct Annotations {
    rules: ExtensionDescriptor,
    disabled: ExtensionDescriptor,
    ignored: ExtensionDescriptor,
    required: ExtensionDescriptor,
    sensitive: ExtensionDescriptor,
}

impl Annotations {
    /// Finds the options in `pool`, which has to be the embedded one.
    pub(super) fn of(pool: &DescriptorPool) -> Self {
        let find =
            |name| pool.get_extension_by_name(name).expect("the embedded descriptors define it; a test loads them");
        Self {
            rules: find("validate.rules"),
            disabled: find("validate.disabled"),
            ignored: find("validate.ignored"),
            required: find("validate.required"),
            sensitive: find("udpa.annotations.sensitive"),
        }
    }

    /// `(validate.rules)` of a field.
    pub(super) fn rules(&self, field: &FieldDescriptor) -> Option<FieldRules> {
        field.field_descriptor_proto().options.as_ref()?;
        let options = field.options();
        if !options.has_extension(&self.rules) {
            return None;
        }
        let value = options.get_extension(&self.rules);
        FieldRules::decode(value.as_message()?.encode_to_vec().as_slice()).ok()
    }

    /// `(udpa.annotations.sensitive)` of a field.
    pub(super) fn is_sensitive(&self, field: &FieldDescriptor) -> bool {
        field.field_descriptor_proto().options.is_some() && is_set(&field.options(), &self.sensitive)
    }

    /// `(validate.required)` of a oneof.
    pub(super) fn is_required(&self, oneof: &OneofDescriptor) -> bool {
        oneof.oneof_descriptor_proto().options.is_some() && is_set(&oneof.options(), &self.required)
    }

    /// `(validate.disabled)` or `(validate.ignored)` of a message: its rules do not count.
    pub(super) fn unchecked(&self, message: &MessageDescriptor) -> bool {
        if message.descriptor_proto().options.is_none() {
            return false;
        }
        let options = message.options();
        is_set(&options, &self.disabled) || is_set(&options, &self.ignored)
    }
}

fn is_set(options: &DynamicMessage, extension: &ExtensionDescriptor) -> bool {
    options.get_extension(extension).as_bool() == Some(true)
}
