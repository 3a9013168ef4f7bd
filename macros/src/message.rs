//! `derive(Message)`, `derive(Command)` and `derive(Event)`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Data, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Member, Path, Result, Token,
    parenthesized,
};

use crate::attribute::{self, Key};

const KNOWN: &str = "the name (`\"orders.order-placed\"`), `version = 2`, `key = order_id`, \
                     `correlate(Order = order_id)`, `alias = \"former.name\"`, \
                     `upcast = function` and `crate = path`";

/// The trait that is derived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Derived {
    Message,
    Command,
    Event,
}

/// What `#[message(..)]` says.
#[derive(Default)]
struct Settings {
    name: Option<LitStr>,
    version: Option<LitInt>,
    key: Option<Member>,
    correlations: Vec<Correlation>,
    aliases: Vec<LitStr>,
    upcast: Option<Path>,
    facade: Option<Path>,
}

/// `Order = order_id`.
struct Correlation {
    saga: Path,
    field: Member,
}

/// Writes the implementations.
pub(crate) fn derive(input: &DeriveInput, derived: Derived) -> Result<TokenStream> {
    let mut settings = Settings::default();
    attribute::read_all(&input.attrs, "message", |key, input| {
        settings.read(key, input)
    })?;
    check_type(input)?;
    let name = settings.name.as_ref().ok_or_else(|| {
        let fact = "name the message: `#[message(\"orders.order-placed\")]`";
        Error::new(input.ident.span(), fact)
    })?;
    attribute::check_name(name, 200)?;
    if let Some(alias) = settings
        .aliases
        .iter()
        .find(|alias| alias.value() == name.value())
    {
        let fact = "an alias is another name than today's; give the one it had before";
        return Err(Error::new(alias.span(), fact));
    }
    let ident = &input.ident;
    let root = attribute::root(settings.facade.as_ref());
    let kind = match derived {
        Derived::Message => quote!(#root::Kind::Reply),
        Derived::Command => quote!(#root::Kind::Command),
        Derived::Event => quote!(#root::Kind::Event),
    };
    let version = settings
        .version
        .as_ref()
        .map(|version| quote!(const VERSION: u32 = #version;));
    let aliases = &settings.aliases;
    let aliases = (!aliases.is_empty())
        .then(|| quote!(const ALIASES: &'static [&'static str] = &[#(#aliases),*];));
    let upcast = settings.upcast.as_ref().map(|upcast| {
        quote! {
            fn upcast(from: u32, body: #root::Value) -> #root::Result<#root::Value> {
                #upcast(from, body)
            }
        }
    });
    let key = settings.key.as_ref().map(|field| key(input, field));
    let key = key.transpose()?;
    let marker = match derived {
        Derived::Message => None,
        Derived::Command => {
            Some(quote!(#[automatically_derived] impl #root::Command for #ident {}))
        }
        Derived::Event => Some(quote!(#[automatically_derived] impl #root::Event for #ident {})),
    };
    let correlations = settings.correlations.iter();
    let correlations: Vec<_> = correlations
        .map(|one| one.implement(input, &root))
        .collect::<Result<_>>()?;
    Ok(quote! {
        #[automatically_derived]
        impl #root::Message for #ident {
            const TYPE: &'static str = #name;
            const KIND: #root::Kind = #kind;
            #version
            #aliases
            #key
            #upcast
        }
        #marker
        #(#correlations)*
    })
}

impl Settings {
    fn read(&mut self, key: Key, input: ParseStream<'_>) -> Result<()> {
        let word = match key {
            Key::Text(name) => {
                let span = name.span();
                return attribute::keep(&mut self.name, name, "the name", span);
            }
            Key::Word(word) => word,
        };
        let span = word.span();
        match word.to_string().as_str() {
            "version" => {
                let version = attribute::version(input)?;
                attribute::keep(&mut self.version, version, "`version`", span)
            }
            "key" => attribute::keep(&mut self.key, attribute::value(input)?, "`key`", span),
            "crate" => attribute::keep(&mut self.facade, attribute::value(input)?, "`crate`", span),
            "alias" => self.read_alias(attribute::value(input)?),
            "upcast" => {
                attribute::keep(&mut self.upcast, attribute::value(input)?, "`upcast`", span)
            }
            "correlate" => self.read_correlations(&word, input),
            _ => Err(attribute::unknown(&word, KNOWN)),
        }
    }

    fn read_alias(&mut self, alias: LitStr) -> Result<()> {
        attribute::check_name(&alias, 200)?;
        let text = alias.value();
        if self.aliases.iter().any(|known| known.value() == text) {
            let fact = format!("alias `{text}` is given twice");
            return Err(Error::new(alias.span(), fact));
        }
        self.aliases.push(alias);
        Ok(())
    }

    fn read_correlations(&mut self, word: &Ident, input: ParseStream<'_>) -> Result<()> {
        let within;
        parenthesized!(within in input);
        let pair = |input: ParseStream<'_>| {
            let saga = input.parse()?;
            let field = attribute::value(input)?;
            Ok(Correlation { saga, field })
        };
        let pairs = Punctuated::<_, Token![,]>::parse_terminated_with(&within, pair)?;
        if pairs.is_empty() {
            let fact = "name the saga and the field: `correlate(Order = order_id)`";
            return Err(Error::new(word.span(), fact));
        }
        self.correlations.extend(pairs);
        Ok(())
    }
}

impl Correlation {
    fn implement(&self, input: &DeriveInput, root: &TokenStream) -> Result<TokenStream> {
        check_field(input, &self.field)?;
        let (ident, saga, field) = (&input.ident, &self.saga, &self.field);
        // At the field's place, where a type that is not the saga's key is then reported.
        let field = quote_spanned!(field.span()=> &self.#field);
        Ok(quote! {
            #[automatically_derived]
            impl #root::Correlate<#saga> for #ident {
                fn key(&self) -> <#saga as #root::Saga>::Key {
                    let key: &<#saga as #root::Saga>::Key = #field;
                    ::core::clone::Clone::clone(key)
                }
            }
        })
    }
}

fn key(input: &DeriveInput, field: &Member) -> Result<TokenStream> {
    check_field(input, field)?;
    // At the field's place, where a type without `Display` is then reported.
    let key = quote_spanned!(field.span()=> ::std::string::ToString::to_string(&self.#field));
    Ok(quote! {
        fn message_key(&self) -> ::core::option::Option<::std::string::String> {
            ::core::option::Option::Some(#key)
        }
    })
}

/// Refuses types of which no message can be made by a derive.
fn check_type(input: &DeriveInput) -> Result<()> {
    if !input.generics.params.is_empty() {
        let fact = "a message has one name, so its type cannot be generic; implement `Message` by \
                    hand for each concrete type";
        return Err(Error::new_spanned(&input.generics, fact));
    }
    if let Data::Union(data) = &input.data {
        let fact = "a union cannot be a message; use a struct or an enum";
        return Err(Error::new(data.union_token.span(), fact));
    }
    Ok(())
}

/// Checks that a setting names a field of the message.
fn check_field(input: &DeriveInput, field: &Member) -> Result<()> {
    let Data::Struct(data) = &input.data else {
        let fact = "only a struct has fields to take a key from; implement `Message` and \
                    `Correlate` by hand for an enum";
        return Err(Error::new(field.span(), fact));
    };
    let fields: Vec<String> = match &data.fields {
        Fields::Named(fields) => {
            let names = fields.named.iter().filter_map(|field| field.ident.as_ref());
            names.map(ToString::to_string).collect()
        }
        Fields::Unnamed(fields) => (0..fields.unnamed.len()).map(|at| at.to_string()).collect(),
        Fields::Unit => Vec::new(),
    };
    let wanted = match field {
        Member::Named(name) => name.to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    };
    if fields.contains(&wanted) {
        return Ok(());
    }
    let message = &input.ident;
    let fact = if fields.is_empty() {
        format!("`{message}` has no fields")
    } else {
        let fields = fields.join("`, `");
        format!("`{message}` has no field `{wanted}`; it has `{fields}`")
    };
    Err(Error::new(field.span(), fact))
}
